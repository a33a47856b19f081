import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Document, learnMerges, type Merge, Tokenizer, tokenizerMarks, writeTokenizer } from '../../lib/index.js'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'foretoken-new-tokenizer-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function made(name: string, merges?: readonly Merge[]): Promise<Tokenizer> {
  await writeTokenizer(join(folder, 'new', name), merges)
  return Tokenizer.open(join(folder, 'new', name))
}

describe('a tokenizer of bytes', () => {
  test('its tokens of a text are the UTF-8 bytes, and give it back', async () => {
    const tokenizer = await made('bytes')
    const text = 'Füße,\n\t日本 🙂 \\boxed {x} e\u0301'
    const document = Document.tokenize(tokenizer, text)
    expect([...document.ids]).toEqual([...Buffer.from(text)])
    expect(tokenizer.decode(document.ids)).toBe(text)
  })

  test('every byte is the token of its number, also where it is no text', async () => {
    const tokenizer = await made('bytes')
    const bytes = Uint8Array.from({ length: 256 }, (_, byte) => byte)
    expect([...tokenizer.bytes.join(Int32Array.from(bytes))]).toEqual([...bytes])
    expect([...tokenizer.encodeBytes(bytes.subarray(0x80))]).toEqual([...bytes.subarray(0x80)])
  })

  test('the marks of an answer are tokens of their own, and the last one ends a text', async () => {
    const tokenizer = await made('bytes')
    expect([...tokenizer.encode('<think>?</think>\\boxed{a}')]).toEqual([256, 63, 257, 258, 97, 125])
    expect(tokenizer.vocabSize).toBe(256 + tokenizerMarks.length)
    expect(tokenizer.eosId).toBe(259)
    // Text cannot write the token that ends it.
    expect([...tokenizer.encode('<|endoftext|>')]).toEqual([...Buffer.from('<|endoftext|>')])
  })
})

describe('merges', () => {
  const code = (text: string) => text.charCodeAt(0)

  test('are those of the paper for its words, the most frequent pair first', async () => {
    // arXiv 1508.07909, algorithm 1, without its end-of-word mark; ties go to the lower bytes.
    const texts = [
      ...Array(5).fill('low'),
      ...Array(2).fill('lower'),
      ...Array(6).fill('newest'),
      ...Array(3).fill('widest'),
    ]
    const merges = await learnMerges(texts, 4)
    // es 9, es+t 9, l+o 7, lo+w 7
    expect(merges).toEqual([
      [code('e'), code('s')],
      [256, code('t')],
      [code('l'), code('o')],
      [258, code('w')],
    ])
    const tokenizer = await made('paper', merges)
    expect([...tokenizer.encode('lowest')]).toEqual([259, 257])
  })

  test('of a repeated token join from the left, and end where no pair is left', async () => {
    const merges = await learnMerges(['aaaaa'], 10)
    expect(merges).toEqual([
      [97, 97],
      [256, 97],
      [256, 257],
    ])
    expect([...(await made('repeated', merges)).encode('aaaaa')]).toEqual([258])
  })

  test('do not cross words, and a text comes back whatever it was learned from', async () => {
    const merges = await learnMerges(['to be or not to be, that is the question\n'.repeat(3)], 100)
    const tokenizer = await made('words', merges)
    for (const text of ['to be or not to be', 'Ω to  be\n\n', "it's 12,5 %"]) {
      const ids = tokenizer.encode(text)
      expect(tokenizer.decode(ids)).toBe(text)
    }
    expect(tokenizer.encode(' question')).toHaveLength(1)
    expect(tokenizer.encode('the question').length).toBeGreaterThan(1)
    expect(tokenizer.eosId).toBe(tokenizer.vocabSize - 1)
  })
})
