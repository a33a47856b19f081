import { createWriteStream, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { afterAll, describe, expect, it } from 'vitest'
import { Corpus } from '../../lib/corpus/index.js'
import { folderOf, jsonl } from './generated.js'

/** FORETOKEN_CORPUS_TEST_MIB=2048 tries the same on two gigabytes. */
const mebibytes = Number(process.env.FORETOKEN_CORPUS_TEST_MIB ?? 384)
const limit = 300e6

describe(`a corpus of ${mebibytes} MiB`, () => {
  const folder = folderOf({})
  afterAll(() => rmSync(folder, { recursive: true }))

  const words = 'the quick brown fox jumps over the lazy dog and sees $x^2 + y^2 = z^2$ in the evening '
  const texts = Array.from({ length: 1000 }, (_, i) => `${i} ${words.repeat(1 + ((i * 7919) % 90))}`)
  const block = Buffer.from(jsonl(texts))
  const blocks = Math.ceil((mebibytes * 2 ** 20) / block.length)
  const source = function* () {
    for (let i = 0; i < blocks; ++i) yield block
  }

  /** Streams all documents; gives their number and how far the process grew. */
  async function grow(name: string): Promise<{ documents: number; bytes: number }> {
    const corpus = await Corpus.open({ sources: [{ path: join(folder, name) }], shuffle: { seed: 1 }, heldOut: 0.01 })
    const before = process.memoryUsage().rss
    let [documents, most] = [0, 0]
    for await (const _ of corpus.stream({ part: 'all' })) {
      if (++documents % 500 === 0) most = Math.max(most, process.memoryUsage().rss)
    }
    return { documents, bytes: most - before }
  }

  it('streams shuffled within 300 MB', async () => {
    await pipeline(Readable.from(source()), createWriteStream(join(folder, 'plain.jsonl')))
    expect(statSync(join(folder, 'plain.jsonl')).size).toBeGreaterThan(limit)
    const { documents, bytes } = await grow('plain.jsonl')
    expect(documents).toBe(blocks * texts.length)
    expect(bytes).toBeLessThan(limit)
  })

  it('streams from gzip within 300 MB', async () => {
    rmSync(join(folder, 'plain.jsonl'), { force: true })
    await pipeline(Readable.from(source()), createGzip({ level: 1 }), createWriteStream(join(folder, 'x.jsonl.gz')))
    const { documents, bytes } = await grow('x.jsonl.gz')
    expect(documents).toBe(blocks * texts.length)
    expect(bytes).toBeLessThan(limit)
  })
})
