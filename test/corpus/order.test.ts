import { appendFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Corpus, type CorpusCursor, type CorpusOptions, describeChanges, isHeldOut } from '../../lib/corpus/index.js'
import { documentHash } from '../../lib/text/document.js'
import { collect, folderOf, jsonl, textsOf } from './generated.js'

/** Seven files of all kinds, 113 documents and some that are broken. */
const texts = Array.from({ length: 113 }, (_, i) => `document ${i} ${'é'.repeat(i % 7)}`)
const files = {
  'a.jsonl': jsonl(texts.slice(0, 40)),
  'b.jsonl.gz': `${jsonl(texts.slice(40, 50))}broken\n${jsonl(texts.slice(50, 61))}`,
  'c/d.txt': texts.slice(61, 80).join('\n\n'),
  'c/e.txt': `\n\n${texts[80]}\n\n\n${texts[81]}\n`,
  'f.jsonl': `${jsonl(texts.slice(82, 112))}{}\n`,
  'g.txt': texts[112]!,
  'h.txt': '',
}
const folder = folderOf(files)
const options = (more: Partial<CorpusOptions> = {}): CorpusOptions => ({
  sources: [{ path: folder, unit: 'paragraph' }],
  onBadRecord: 'skip',
  ...more,
})
const orders: [string, Partial<CorpusOptions>][] = [
  ['in order', {}],
  ['shuffled within windows', { shuffle: { seed: 5, window: 16 } }],
  ['shuffled within windows of bytes', { shuffle: { seed: 5, windowBytes: 300 } }],
  ['shuffled as a whole', { shuffle: { seed: 5 } }],
]

describe('the order of documents', () => {
  it('without shuffling is that of the files', async () => {
    expect(await textsOf(await Corpus.open(options()))).toEqual(texts)
  })

  for (const [name, order] of orders) {
    it(`${name} has every document once in each epoch`, async () => {
      const corpus = await Corpus.open(options(order))
      const twice = (await collect(corpus.stream({ epochs: 2 }))).map((document) => document.text)
      expect(twice.length).toBe(2 * texts.length)
      for (const epoch of [twice.slice(0, texts.length), twice.slice(texts.length)]) {
        expect([...epoch].sort()).toEqual([...texts].sort())
      }
    })
  }

  it('when shuffled depends on seed and epoch, and on nothing else', async () => {
    const run = async (seed: number) =>
      (await collect((await Corpus.open(options({ shuffle: { seed, window: 16 } }))).stream({ epochs: 2 }))).map(
        (document) => document.text,
      )
    const [first, again, other] = [await run(1), await run(1), await run(2)]
    expect(first).toEqual(again)
    expect(first).not.toEqual(other)
    expect(first.slice(0, texts.length)).not.toEqual(first.slice(texts.length))
    expect(first.slice(0, texts.length)).not.toEqual(texts)
  })

  it('goes on for ever when asked, and stops where there is nothing to give', async () => {
    const corpus = await Corpus.open(options())
    expect((await collect(corpus.stream({ epochs: Number.POSITIVE_INFINITY }), 500)).length).toBe(500)
    const empty = await Corpus.open({ sources: [{ path: join(folder, 'h.txt') }] })
    await expect(collect(empty.stream({ epochs: Number.POSITIVE_INFINITY }))).rejects.toThrow(
      /no documents \(left out: 1 empty\)/,
    )
  })
})

describe('a stream resumed from a cursor', () => {
  for (const [name, order] of orders) {
    it(`goes on with exactly the rest, from every document (${name})`, async () => {
      const corpus = await Corpus.open(options({ ...order, heldOut: 0.2 }))
      const stream = corpus.stream({ part: 'train', epochs: 2 })
      const cursors: CorpusCursor[] = [stream.cursor()]
      const all: string[] = []
      for await (const { text } of stream) {
        all.push(text)
        cursors.push(stream.cursor())
      }
      const another = await Corpus.open(options({ ...order, heldOut: 0.2 }))
      for (let i = 0; i < cursors.length; i += i < 40 ? 1 : 13) {
        const cursor = JSON.parse(JSON.stringify(cursors[i])) as CorpusCursor
        expect(cursor.documents).toBe(i)
        const resumed = another.stream({ cursor, epochs: 2 })
        expect((await collect(resumed)).map((document) => document.text)).toEqual(all.slice(i))
        expect(resumed.skipped).toEqual(stream.skipped)
        expect(resumed.cursor()).toEqual(stream.cursor())
      }
    })
  }

  it('is closed and reopened by return()', async () => {
    const corpus = await Corpus.open(options())
    const stream = corpus.stream()
    const first = await collect(stream, 5)
    await stream.return()
    expect([...first, ...(await collect(stream))].map((document) => document.text)).toEqual(texts)
  })

  it('refuses a cursor of other data or another order, and says which file changed', async () => {
    const changing = folderOf({ 'a.jsonl': jsonl(['1', '2']), 'b.jsonl': jsonl(['3']) })
    const open = (seed: number) => Corpus.open({ sources: [{ path: changing }], shuffle: { seed } })
    const before = await open(1)
    const cursor = before.stream().cursor()
    expect((await open(1)).stream({ cursor })).toBeDefined()
    const reordered = await open(2)
    expect(() => reordered.stream({ cursor })).toThrow(expect.objectContaining({ code: 'DATA_CHANGED' }))
    expect(() => before.stream({ cursor, part: 'train' })).toThrow(/of the all documents/)
    appendFileSync(join(changing, 'b.jsonl'), jsonl(['4']))
    const after = await open(1)
    expect(() => after.stream({ cursor })).toThrow(/not that of the cursor/)
    expect(after.stream({ cursor, ignoreChanges: true })).toBeDefined()
    expect(describeChanges(before.fileFingerprints, after.fileFingerprints)).toEqual([
      'b.jsonl has changed (13 bytes then, 26 now)',
    ])
  })
})

describe('the held-out part', () => {
  it('and the training part share no document and are the whole together', async () => {
    const corpus = await Corpus.open(options({ heldOut: 0.25 }))
    const train = await textsOf(corpus, 'train')
    const heldOut = await textsOf(corpus, 'held-out')
    expect([...train, ...heldOut].sort()).toEqual([...texts].sort())
    expect(new Set([...train, ...heldOut]).size).toBe(texts.length)
    expect(heldOut.length).toBeGreaterThan(texts.length * 0.1)
    expect(heldOut.length).toBeLessThan(texts.length * 0.4)
  })

  it('depends on the bytes of a document alone: copies fall on one side, a greater share holds out more', () => {
    const hashes = texts.map((text) => documentHash(text))
    for (const hash of hashes) expect(isHeldOut(hash, 0.1) && !isHeldOut(hash, 0.3)).toBe(false)
    expect(hashes.some((hash) => isHeldOut(hash, 0))).toBe(false)
    expect(isHeldOut('7fffffffffffffff', 0.5)).toBe(true)
    expect(isHeldOut('8000000000000000', 0.5)).toBe(false)
  })
})

describe('the fingerprint of a corpus', () => {
  it('is the same wherever the files lie, and changes with any byte', async () => {
    const open = async (path: string) => (await Corpus.open({ sources: [{ path, unit: 'paragraph' }] })).fingerprint
    const copy = folderOf(files)
    expect(await open(copy)).toBe(await open(folder))
    appendFileSync(join(copy, 'g.txt'), '.')
    expect(await open(copy)).not.toBe(await open(folder))
  })
})
