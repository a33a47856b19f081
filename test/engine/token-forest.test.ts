import { describe, expect, test } from 'vitest'
import { TokenForest } from '../../lib/index.js'

describe('a token forest', () => {
  test('numbers its segments and tokens in the order of adding', () => {
    const forest = new TokenForest()
    const root = forest.add(null, [5, 6, 7])
    const left = forest.add(root, Int32Array.of(8))
    const other = forest.add(null, [9, 10])
    const right = forest.add(root, [11, 12])
    expect([root, left, other, right]).toEqual([0, 1, 2, 3])
    expect(forest.length).toBe(8)
    expect(forest.segmentCount).toBe(4)
    expect([...forest.tokens]).toEqual([5, 6, 7, 8, 9, 10, 11, 12])
    expect(forest.segment(right)).toEqual({ parent: root, begin: 6, end: 8, position: 3 })
    expect(forest.segment(other)).toEqual({ parent: null, begin: 4, end: 6, position: 0 })
  })

  test('gives the tokens of a path as a model without sharing would be given them', () => {
    const forest = new TokenForest()
    const a = forest.add(null, [1, 2])
    forest.add(a, [3])
    const b = forest.add(a, [4, 5])
    const c = forest.add(b, [6])
    expect(forest.path(c)).toEqual([a, b, c])
    expect([...forest.flatten(c)]).toEqual([1, 2, 4, 5, 6])
  })

  test('gives a segment its part of a per-token array without copying', () => {
    const forest = new TokenForest()
    forest.add(null, [1, 2])
    const leaf = forest.add(0, [3, 4])
    const logprobs = Float32Array.of(Number.NaN, -1, -2, -3)
    const part = forest.slice(leaf, logprobs)
    expect([...part]).toEqual([-2, -3])
    expect(part.buffer).toBe(logprobs.buffer)
    expect(() => forest.slice(leaf, logprobs.subarray(0, 3))).toThrow(/perToken has 3 entries, but segment 1 ends at 4/)
  })

  test('grows far beyond its first allocation', () => {
    const forest = new TokenForest()
    const ids = Array.from({ length: 1000 }, (_, i) => i)
    let parent: number | null = null
    for (let i = 0; i < 200; ++i) parent = forest.add(parent, ids)
    expect(forest.length).toBe(200_000)
    expect(forest.segment(199)).toEqual({ parent: 198, begin: 199_000, end: 200_000, position: 199_000 })
    expect([...forest.flatten(199).slice(-2)]).toEqual([998, 999])
  })

  test('keeps its own copy of what is added, and gives copies away', () => {
    const forest = new TokenForest()
    const ids = Int32Array.of(1, 2, 3)
    forest.add(null, ids)
    ids[0] = 99
    forest.tokens[1] = 99
    expect([...forest.tokens]).toEqual([1, 2, 3])
  })

  test.each([
    ['a parent that does not exist', () => new TokenForest().add(0, [1]), /parent 0 does not exist: the forest has 0/],
    ['a negative parent', () => new TokenForest().add(-1, [1]), /parent must be a whole number from 0/],
    ['no tokens', () => new TokenForest().add(null, []), /ids must not be empty/],
    ['a fraction', () => new TokenForest().add(null, [1, 2.5]), /ids\[1\] must be a whole number .* not 2\.5/],
    ['a negative id', () => new TokenForest().add(null, Int32Array.of(3, -1)), /ids\[1\] must be .* not -1/],
    ['a string', () => new TokenForest().add(null, 'ab' as unknown as number[]), /ids must be an array .* not "ab"/],
    ['a segment that does not exist', () => new TokenForest().flatten(3), /segment 3 does not exist/],
  ])('refuses %s', (_, attempt, message) => {
    expect(attempt).toThrow(message)
    expect(attempt).toThrow(expect.objectContaining({ name: 'ForetokenError', code: 'INVALID_ARGUMENT' }))
  })
})
