import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { Tokenizer } from '../../lib/text/tokenizer.js'
import { describeShared, sharedPath } from './shared.js'

/** llama.cpp's vectors: texts between marker lines, one line of ids for each. */
function vectors(name: string): { text: string; ids: number[] }[] {
  const texts = readFileSync(sharedPath('tokenizers', 'vectors', `${name}.inp`), 'utf8').split(
    '\n__ggml_vocab_test__\n',
  )
  const lines = readFileSync(sharedPath('tokenizers', 'vectors', `${name}.out`), 'utf8').split('\n')
  return texts.map((text, i) => ({ text, ids: lines[i]!.trim().split(' ').filter(Boolean).map(Number) }))
}

const cases = [
  ['qwen2.5', 'ggml-vocab-qwen2.gguf'],
  ['gpt2', 'ggml-vocab-gpt-2.gguf'],
] as const

for (const [name, file] of cases) {
  describeShared('tokenizers/vectors', `the ${name} tokenizer on llama.cpp's vectors`, async () => {
    const tokenizer = await Tokenizer.open(sharedPath('tokenizers', name))
    for (const { text, ids } of vectors(file)) {
      it(`encodes ${JSON.stringify(text.slice(0, 40))} to the same ids`, () => {
        expect([...tokenizer.encode(text)]).toEqual(ids)
      })
      it(`gives back the bytes of ${JSON.stringify(text.slice(0, 40))}`, () => {
        expect(Buffer.from(tokenizer.bytes.join(ids)).equals(Buffer.from(text))).toBe(true)
      })
    }
  })
}
