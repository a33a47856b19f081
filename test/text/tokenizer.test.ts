import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Tokenizer as Backend } from '@huggingface/tokenizers'
import { describe, expect, it } from 'vitest'
import { Tokenizer } from '../../lib/text/tokenizer.js'
import { describeShared, sharedPath } from './shared.js'
import { byteAlphabet, byteLevelTokenizer } from './small-tokenizers.js'

const texts = ['Once upon a time', ' two  blanks ', 'naïve café 😀 漢字', 'line\nline\r\n\ttab', '😀', 'a\u0000b', '▁']

describe('a byte-level tokenizer', () => {
  const tokenizer = byteLevelTokenizer([
    ['\u0120', 't'],
    ['Ã', '©'],
  ])

  it('has one token per byte, and a merged token stands for the bytes of its parts', () => {
    const alphabet = byteAlphabet()
    for (let byte = 0; byte < 256; ++byte) {
      expect([...tokenizer.bytes.of(tokenizer.idOf(alphabet[byte]!)!)]).toEqual([byte])
    }
    expect(Buffer.from(tokenizer.bytes.of(tokenizer.idOf('\u0120t')!)).toString()).toBe(' t')
    expect(Buffer.from(tokenizer.bytes.of(tokenizer.idOf('Ã©')!)).toString()).toBe('é')
  })

  it('gives back the bytes of every text', () => {
    for (const text of texts) {
      const ids = tokenizer.encode(text)
      expect(Buffer.from(tokenizer.bytes.join(ids)).toString()).toBe(text)
      expect(tokenizer.decode(ids)).toBe(text)
    }
  })

  it('keeps control tokens out of raw text unless they are asked for', () => {
    expect(tokenizer.encode('a</s>').length).toBe(5)
    expect([...tokenizer.encode('a</s>', { special: true })]).toEqual([tokenizer.idOf('a'), tokenizer.eosId])
    expect(tokenizer.decode([tokenizer.idOf('a')!, tokenizer.eosId!], { special: false })).toBe('a')
  })

  it('covers bytes that are not UTF-8 by the longest tokens', () => {
    const ids = tokenizer.encodeBytes(Uint8Array.of(0x20, 0x74, 0xc3))
    expect([...ids]).toEqual([tokenizer.idOf('\u0120t'), tokenizer.idOf('Ã')])
  })

  it('says no bytes for ids outside the vocabulary', () => {
    expect(tokenizer.bytes.of(tokenizer.vocabSize).length).toBe(0)
    expect(tokenizer.bytes.of(-1).length).toBe(0)
  })
})

describe('the fingerprint', () => {
  it('is equal for the same vocabulary and differs with one merge', () => {
    expect(byteLevelTokenizer([['a', 'b']]).fingerprint).toBe(byteLevelTokenizer([['a', 'b']]).fingerprint)
    expect(byteLevelTokenizer([['a', 'b']]).fingerprint).not.toBe(byteLevelTokenizer([['a', 'c']]).fingerprint)
  })
})

describe('a broken tokenizer directory', () => {
  it('is refused by name', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'foretoken-'))
    await expect(Tokenizer.open(directory)).rejects.toMatchObject({ code: 'IO' })
    await writeFile(join(directory, 'tokenizer.json'), '{"model": ')
    await expect(Tokenizer.open(directory)).rejects.toThrow(/tokenizer\.json is not valid JSON/)
    await writeFile(
      join(directory, 'tokenizer.json'),
      '{"model": {"type": "WordPiece", "vocab": {}}, "decoder": {"type": "WordPiece"}}',
    )
    await expect(Tokenizer.open(directory)).rejects.toThrow(/WordPiece/)
    await rm(directory, { recursive: true })
  })
})

describeShared('models/stories260K', "stories260K's SentencePiece-style tokenizer", async () => {
  const directory = sharedPath('models', 'stories260K', 'hf')
  const tokenizer = await Tokenizer.open(directory)
  const read = (name: string) => JSON.parse(readFileSync(join(directory, name), 'utf8'))
  const backend = new Backend(read('tokenizer.json'), read('tokenizer_config.json'))

  it('knows its special tokens', () => {
    expect(tokenizer).toMatchObject({ bosId: 1, eosId: 2, vocabSize: 512, addsBos: true, scheme: 'sentencepiece' })
    expect(tokenizer.stopIds).toEqual([2])
  })

  it('puts one space before a text and none before a continuation', () => {
    expect(Buffer.from(tokenizer.bytes.join(tokenizer.encode('Once'))).toString()).toBe(' Once')
    for (const text of texts.slice(0, 6)) {
      expect(Buffer.from(tokenizer.bytes.join(tokenizer.encode(text))).toString()).toBe(` ${text}`)
      expect(Buffer.from(tokenizer.bytes.join(tokenizer.encode(text, { continues: true }))).toString()).toBe(text)
    }
  })

  it('writes unknown characters as bytes', () => {
    const ids = tokenizer.encode('漢', { continues: true })
    expect([...ids].map((id) => tokenizer.tokenOf(id))).toEqual(['<0xE6>', '<0xBC>', '<0xA2>'])
    expect([...ids].map((id) => tokenizer.bytes.of(id)[0])).toEqual([0xe6, 0xbc, 0xa2])
  })

  it('decodes as Hugging Face does, and encodes alike with and without the first token', () => {
    for (const text of texts) {
      const plain = tokenizer.encode(text)
      expect(tokenizer.decode(plain)).toBe(backend.decode([...plain]))
      expect([...plain]).toEqual(backend.encode(text, { add_special_tokens: false }).ids)
      expect([...tokenizer.encode(text, { special: true, template: true })]).toEqual(backend.encode(text).ids)
    }
  })

  it('encodes the prompts of the reference to the ids of the reference', () => {
    const expected = JSON.parse(readFileSync(sharedPath('models', 'stories260K', 'expected.json'), 'utf8'))
    const prompts = findPrompts(expected)
    expect(prompts.length).toBeGreaterThan(0)
    for (const { text, ids } of prompts) expect([...tokenizer.encode(text, { template: true })]).toEqual(ids)
  })
})

function findPrompts(expected: Record<string, unknown>): { text: string; ids: number[] }[] {
  const list = (Array.isArray(expected) ? expected : Object.values(expected).find(Array.isArray)) as unknown[]
  return (list as { prompt: string; prompt_ids: number[] }[]).map((entry) => ({
    text: entry.prompt,
    ids: entry.prompt_ids,
  }))
}

describeShared('tokenizers', "DeepSeek-R1-Distill-Qwen's tokenizer", async () => {
  const tokenizer = await Tokenizer.open(sharedPath('tokenizers', 'deepseek-r1-distill-qwen'))
  it('gives back bytes, adds its first token only when asked and has <think> as one token', () => {
    for (const text of texts) expect(Buffer.from(tokenizer.bytes.join(tokenizer.encode(text))).toString()).toBe(text)
    expect(tokenizer.encode('a', { template: true })[0]).toBe(tokenizer.bosId)
    expect([...tokenizer.encode('<think>')]).toEqual([151648])
    expect(tokenizer.eosId).toBe(151643)
    expect(tokenizer.chatTemplate).toBeDefined()
  })
})

describe('the table of tokens', () => {
  it('has the form that the engine takes', () => {
    expect(Object.keys(byteLevelTokenizer().bytes).sort()).toEqual(['bytes', 'offsets'])
  })
})
