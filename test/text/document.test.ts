import { describe, expect, it } from 'vitest'
import { Document, documentHash } from '../../lib/text/document.js'
import { Tokenizer } from '../../lib/text/tokenizer.js'
import { describeShared, sharedPath } from './shared.js'
import { byteLevelTokenizer } from './small-tokenizers.js'

const text = 'a naïve 😀 cat\n'

describe('a document of a byte-level tokenizer', () => {
  const tokenizer = byteLevelTokenizer([
    ['c', 'a'],
    ['ca', 't'],
    ['\u0120', 'cat'],
  ])
  const document = Document.tokenize(tokenizer, text)

  it('has the bytes of its text and a boundary before every token', () => {
    expect(Buffer.from(document.bytes).toString()).toBe(text)
    expect(document.offsets.length).toBe(document.length + 1)
    for (let t = 0; t < document.length; ++t) {
      expect([...document.tokenBytes(t)]).toEqual([...tokenizer.bytes.of(document.ids[t]!)])
      expect(document.isBoundary(document.offsets[t]!)).toBe(true)
    }
    expect(document.isBoundary(document.bytes.length)).toBe(true)
    const catAt = document.bytes.length - 5
    expect([0, 1, 2, 3, 4, 5].map((i) => document.isBoundary(catAt + i))).toEqual([
      true,
      false,
      false,
      false,
      true,
      true,
    ])
    expect(document.isBoundary(document.bytes.length + 1)).toBe(false)
  })

  it('continues from a position with the rest of its bytes', () => {
    for (let t = 0; t <= document.length; ++t) {
      const head = tokenizer.bytes.join(document.context(t))
      expect(Buffer.concat([head, document.continuation(t)]).toString()).toBe(text)
    }
  })

  it('is named by the hash of its text', () => {
    expect(document.id).toBe(documentHash(text))
    expect(documentHash('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')
  })

  it('ends, when asked, with a token without bytes', () => {
    const ended = Document.tokenize(tokenizer, text, { end: true })
    expect(ended.ids.at(-1)).toBe(tokenizer.eosId)
    expect(ended.length).toBe(document.length + 1)
    expect(ended.bytes.length).toBe(document.bytes.length)
    expect(ended.tokenBytes(document.length).length).toBe(0)
  })

  it('falls into windows that overlap and cover every token', () => {
    const windows = document.windows(6, 2)
    expect(windows[0]!.length).toBe(6)
    const rebuilt = [...windows[0]!.ids]
    for (const window of windows.slice(1)) {
      expect([...window.ids.subarray(0, 2)]).toEqual(rebuilt.slice(-2))
      expect(window.length).toBeGreaterThan(2)
      rebuilt.push(...window.ids.subarray(2))
    }
    expect(rebuilt).toEqual([...document.ids])
    for (const window of windows) expect([...tokenizer.bytes.join(window.ids)]).toEqual([...window.bytes])
    expect(document.windows(1000)).toEqual([document])
  })
})

describe('a tokenizer that loses text', () => {
  it('is refused with the place, never trained on', () => {
    const lossy = Tokenizer.fromJson({
      model: { type: 'WordLevel', vocab: { a: 0, b: 1 }, unk_token: null },
      pre_tokenizer: { type: 'Whitespace' },
      decoder: { type: 'Fuse' },
    })
    expect(() => Document.tokenize(lossy, 'a b')).toThrow(/byte 1 on/)
  })
})

describeShared('models/stories260K', 'a document of a SentencePiece-style tokenizer', async () => {
  const tokenizer = await Tokenizer.open(sharedPath('models', 'stories260K', 'hf'))
  it('leaves the added first space out of its bytes, and keeps a space of its own', () => {
    for (const source of ['Once upon 漢', ' Once', '  x', ' ']) {
      const document = Document.tokenize(tokenizer, source)
      expect(Buffer.from(document.bytes).toString()).toBe(source)
      expect(document.offsets.at(-1)).toBe(document.bytes.length)
    }
  })
})

describeShared('tokenizers', 'a document of a tokenizer that normalises', async () => {
  const tokenizer = await Tokenizer.open(sharedPath('tokenizers', 'qwen2.5'))
  it('has the bytes of the normalised text', () => {
    expect(Buffer.from(Document.tokenize(tokenizer, 'cafe\u0301').bytes).toString()).toBe('caf\u00e9')
  })
})
