import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { byteTokenizerMarks, Document, Tokenizer, writeByteTokenizer } from '../../lib/index.js'

let folder: string
let tokenizer: Tokenizer
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'foretoken-bytes-'))
  await writeByteTokenizer(join(folder, 'new', 'tokenizer'))
  tokenizer = await Tokenizer.open(join(folder, 'new', 'tokenizer'))
})
afterAll(() => rm(folder, { recursive: true }))

test('the tokens of a text are its UTF-8 bytes, and give it back', () => {
  const text = 'Füße,\n\t日本 🙂 \\boxed {x} e\u0301'
  const document = Document.tokenize(tokenizer, text)
  expect([...document.ids]).toEqual([...Buffer.from(text)])
  expect(tokenizer.decode(document.ids)).toBe(text)
})

test('every byte is the token of its number, also where it is no text', () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, byte) => byte)
  expect([...tokenizer.bytes.join(Int32Array.from(bytes))]).toEqual([...bytes])
  expect([...tokenizer.encodeBytes(bytes.subarray(0x80))]).toEqual([...bytes.subarray(0x80)])
})

test('the marks of an answer are tokens of their own, and the last one ends a text', () => {
  const ids = [...tokenizer.encode('<think>?</think>\\boxed{a}')]
  expect(ids).toEqual([256, 63, 257, 258, 97, 125])
  expect(tokenizer.vocabSize).toBe(256 + byteTokenizerMarks.length)
  expect(tokenizer.eosId).toBe(259)
  // Text cannot write the token that ends it.
  expect([...tokenizer.encode('<|endoftext|>')]).toEqual([...Buffer.from('<|endoftext|>')])
})
