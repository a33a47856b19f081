import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { fromFloat16, toFloat16 } from '../../lib/corpus/float16.js'
import {
  DifficultyIndex,
  DifficultyIndexWriter,
  DifficultyStatistics,
  PhiloxStream,
  selectPositions,
} from '../../lib/corpus/index.js'
import { Document, documentHash } from '../../lib/text/document.js'
import { byteLevelTokenizer } from '../text/small-tokenizers.js'
import { folderOf } from './generated.js'

describe('half precision', () => {
  it('survives the way there and back for every one of its numbers', () => {
    for (let bits = 0; bits < 0x10000; ++bits) {
      const value = fromFloat16(bits)
      if (Number.isNaN(value)) expect(fromFloat16(toFloat16(value))).toBeNaN()
      else expect(toFloat16(value)).toBe(bits)
    }
  })
  it('rounds to the nearest, ties to even', () => {
    for (let bits = 0; bits < 0x7bff; bits += 13) {
      const [low, high] = [fromFloat16(bits), fromFloat16(bits + 1)]
      const middle = (low + high) / 2
      expect(toFloat16(middle)).toBe(bits % 2 === 0 ? bits : bits + 1)
      expect(toFloat16(low + (high - low) * 0.499)).toBe(bits)
      expect(toFloat16(low + (high - low) * 0.501)).toBe(bits + 1)
    }
    expect([1, -2, 0.5, 65504].map((value) => fromFloat16(toFloat16(value)))).toEqual([1, -2, 0.5, 65504])
    expect(fromFloat16(toFloat16(65520))).toBe(Number.POSITIVE_INFINITY)
  })
})

describe('a difficulty index', () => {
  const random = new PhiloxStream(3, 99, 0)
  const entropies = (length: number) =>
    Float32Array.from({ length }, (_, t) => (t === 0 ? Number.NaN : random.below(2800) / 1000))
  const documents = Array.from({ length: 50 }, (_, i) => ({ hash: documentHash(`${i}`), entropies: entropies(i * 7) }))
  const header = { tokenizer: 'T', proxy: 'P', corpus: 'C', topK: 16 } as const
  const write = async (path: string, dtype: 'float16' | 'float32') => {
    const writer = await DifficultyIndexWriter.create(path, { ...header, dtype })
    for (const { hash, entropies } of documents) await writer.add(hash, entropies)
    await writer.finish()
  }

  for (const dtype of ['float16', 'float32'] as const) {
    it(`gives back what was written, by document and in order (${dtype})`, async () => {
      const path = join(folderOf({}), 'x.index')
      await write(path, dtype)
      const index = await DifficultyIndex.open(path)
      expect(index.header).toEqual({ ...header, dtype })
      expect(index.size).toBe(documents.length)
      const round = dtype === 'float16' ? (value: number) => fromFloat16(toFloat16(value)) : Math.fround
      const expected = documents.map(({ hash, entropies }) => ({ hash, entropies: entropies.map(round) }))
      for (const { hash, entropies } of expected) expect(await index.get(hash)).toEqual(entropies)
      expect(await index.get(documentHash('other'))).toBeUndefined()
      const streamed = []
      for await (const document of index.documents()) streamed.push(document)
      expect(streamed).toEqual(expected)
      await index.close()
    })
  }

  it('appears under its name only when it is complete, and is refused when it is cut or changed', async () => {
    const folder = folderOf({})
    const path = join(folder, 'x.index')
    const writer = await DifficultyIndexWriter.create(path, { ...header, dtype: 'float16' })
    await writer.add(documentHash('a'), [Number.NaN, 1])
    expect(existsSync(path)).toBe(false)
    await writer.discard()
    expect(readdirSync(folder)).toEqual([])
    await write(path, 'float16')
    const bytes = readFileSync(path)
    for (const length of [0, 10, 100, bytes.length - 1]) {
      truncateSync(path, length)
      await expect(DifficultyIndex.open(path)).rejects.toMatchObject({ code: 'INVALID_DATA' })
      writeFileSync(path, bytes)
    }
    await expect(DifficultyIndex.open(join(folder, 'none'))).rejects.toMatchObject({ code: 'IO' })
  })

  it('is refused for another tokenizer or corpus', async () => {
    const path = join(folderOf({}), 'x.index')
    await write(path, 'float16')
    const index = await DifficultyIndex.open(path)
    expect(index.check({ tokenizer: 'T' })).toBeUndefined()
    expect(index.check({ tokenizer: 'T', corpus: 'C' })).toBeUndefined()
    expect(() => index.check({ tokenizer: 'U' })).toThrow(/another tokenizer/)
    expect(() => index.check({ tokenizer: 'T', corpus: 'D' })).toThrow(/another corpus/)
    await index.close()
  })
})

describe('positions of a document', () => {
  const tokenizer = byteLevelTokenizer()
  const document = Document.tokenize(tokenizer, 'abcdefghij')
  const entropies = [Number.NaN, 0.2, 0.5, 0.6, 2, 1.1, 0.9, 1.7, 0.1, 3]
  const select = (options: Partial<Parameters<typeof selectPositions>[2]>, of = document) => [
    ...selectPositions(of, of === document ? entropies : [...entropies, 5], { by: 'threshold', seed: 1, ...options }),
  ]

  it('are those above the threshold, by default 0.5 nats', () => {
    expect(select({})).toEqual([3, 4, 5, 6, 7, 9])
    expect(select({ minEntropy: 1.5 })).toEqual([4, 7, 9])
    expect(select({ minEntropy: 1, maxEntropy: 2 })).toEqual([4, 5, 7])
  })
  it('or the top share of those that may be asked about', () => {
    expect(select({ by: 'top-share', share: 3 / 9 })).toEqual([4, 7, 9])
    expect(select({ by: 'top-share', share: 0.5, maxContext: 6 })).toEqual([4, 5, 6])
    expect(select({ by: 'top-share', share: 0 })).toEqual([])
    expect(select({ by: 'top-share', share: 1 })).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
  })
  it('or any, and have enough context and not too much', () => {
    expect(select({ by: 'random' })).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(select({ by: 'random', minContext: 0 })).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(select({ by: 'random', minContext: 4, maxContext: 6 })).toEqual([4, 5, 6])
    expect([...selectPositions(document, undefined, { by: 'random', seed: 1 })].length).toBe(9)
  })
  it('are never the end of the text', () => {
    const ended = Document.tokenize(tokenizer, 'abcdefghij', { end: true })
    expect(select({ minEntropy: 1.9 }, ended)).toEqual([4, 9])
  })
  it('are at most so many, the same for the same seed, document and epoch, and every one as likely', () => {
    const choose = (seed: number, epoch = 0) => select({ by: 'random', maxPerDocument: 3, seed, epoch })
    expect(choose(1)).toEqual(choose(1))
    expect(choose(1)).toHaveLength(3)
    expect(choose(1)).toEqual([...choose(1)].sort((a, b) => a - b))
    const counts = new Array(10).fill(0)
    for (let seed = 0; seed < 3000; ++seed) for (const t of choose(seed, seed % 3)) ++counts[t]
    // A third of the seeds each; six standard deviations.
    for (const count of counts.slice(1)) expect(Math.abs(count - 1000)).toBeLessThan(6 * Math.sqrt((3000 * 2) / 9))
    const epochs = new Set(Array.from({ length: 20 }, (_, epoch) => String(choose(1, epoch))))
    expect(epochs.size).toBeGreaterThan(10)
  })
  it('need as many entropies as tokens', () => {
    expect(() => selectPositions(document, [1, 2], { by: 'threshold', seed: 1 })).toThrow(/10 tokens but 2 entropies/)
  })
})

describe('statistics of entropies', () => {
  it('are those of all positions, with nested splits and a histogram', () => {
    const statistics = new DifficultyStatistics()
    statistics.add([Number.NaN, 0, 0.5, 0.6])
    statistics.add([Number.NaN, 1.2, 1.6, 2.7])
    const summary = statistics.summary(4)
    expect(summary).toMatchObject({ count: 6, max: 2.7, above: { easy: 4 / 6, medium: 3 / 6, hard: 2 / 6 } })
    expect(summary.mean).toBeCloseTo(1.1, 12)
    expect(summary.deviation).toBeCloseTo(
      Math.sqrt((1.1 ** 2 + 0.6 ** 2 + 0.5 ** 2 + 0.1 ** 2 + 0.5 ** 2 + 1.6 ** 2) / 6),
      12,
    )
    expect(summary.histogram.counts).toEqual([3, 1, 1, 1])
    expect(new DifficultyStatistics().summary().count).toBe(0)
  })
  it('tell the threshold above which a share lies', () => {
    const statistics = new DifficultyStatistics()
    const values = Array.from({ length: 1000 }, (_, i) => (i * 2.7) / 1000)
    statistics.add(values)
    for (const share of [0.05, 0.2, 0.5]) {
      const threshold = statistics.thresholdOfShare(share)
      const above = values.filter((value) => value > threshold).length / values.length
      expect(Math.abs(above - share)).toBeLessThan(0.002)
    }
  })
})
