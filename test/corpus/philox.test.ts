import { describe, expect, it } from 'vitest'
import { PhiloxStream, philox } from '../../lib/corpus/index.js'

describe('Philox4x32-10', () => {
  // Random123's known-answer tests (kat_vectors).
  it('gives the published words', () => {
    const hex = (words: number[]) => words.map((word) => word.toString(16).padStart(8, '0')).join(' ')
    expect(hex(philox([0, 0, 0, 0], [0, 0]))).toBe('6627e8d5 e169c58d bc57ac4c 9b00dbd8')
    const ones = 0xffffffff
    expect(hex(philox([ones, ones, ones, ones], [ones, ones]))).toBe('408f276d 41c83b0e a20bc7c6 6d5451fd')
    expect(hex(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]))).toBe(
      'd16cfe09 94fdcceb 5001e420 24126ea1',
    )
  })
})

describe('a stream of random numbers', () => {
  it('gives the words of its counters in order, and others for another use, stream or seed', () => {
    const words = (...parts: [number, number, number, number?]) => {
      const stream = new PhiloxStream(...parts)
      return Array.from({ length: 6 }, () => stream.next())
    }
    const expected = [...philox([0, 0, 3, 17], [7, 0]), ...philox([1, 0, 3, 17], [7, 0])].slice(0, 6)
    expect(words(7, 17, 3)).toEqual(expected)
    for (const other of [
      words(8, 17, 3),
      words(7, 16, 3),
      words(7, 17, 4),
      words(7, 17, 3, 1),
      words(7 + 2 ** 32, 17, 3),
    ]) {
      expect(other).not.toEqual(expected)
    }
  })
  it('chooses and shuffles evenly', () => {
    const stream = new PhiloxStream(1, 17, 0)
    const counts = [0, 0, 0]
    const firsts = [0, 0, 0, 0]
    for (let i = 0; i < 12_000; ++i) {
      ++counts[stream.below(3)]!
      ++firsts[stream.shuffle([0, 1, 2, 3])[0]!]!
    }
    // Six standard deviations of a binomial count: one false alarm in 10^8.
    for (const count of counts) expect(Math.abs(count - 4000)).toBeLessThan(6 * Math.sqrt((12_000 * 2) / 9))
    for (const count of firsts) expect(Math.abs(count - 3000)).toBeLessThan(6 * Math.sqrt((12_000 * 3) / 16))
  })
})
