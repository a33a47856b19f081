/**
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), the same function as
 * native/core/philox.h: four random words from a counter and a key, without state.
 */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter
  let [k0, k1] = key
  for (let round = 0; round < 10; ++round) {
    const high0 = multiplyHigh(0xd2511f53, c0)
    const low0 = Math.imul(0xd2511f53, c0) >>> 0
    const high1 = multiplyHigh(0xcd9e8d57, c2)
    const low1 = Math.imul(0xcd9e8d57, c2) >>> 0
    c0 = (high1 ^ c1 ^ k0) >>> 0
    c1 = low1
    c2 = (high0 ^ c3 ^ k1) >>> 0
    c3 = low0
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1, c2, c3]
}

/** The upper 32 bits of a product of two 32-bit words. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff
  const aHigh = a >>> 16
  const bLow = b & 0xffff
  const bHigh = b >>> 16
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16)
  const cross = aLow * bHigh + (middle & 0xffff)
  return aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(cross / 0x10000)
}

/** What a draw is for; part of the counter, so that uses never share numbers. The native core's uses are below 16. */
export const randomUse = { fileOrder: 16, window: 17, positions: 18 } as const

/** A stream of random numbers that depends on nothing but what it is for. */
export class PhiloxStream {
  private words: number[] = []
  private index = 0
  private readonly key: readonly [number, number]

  /** `seed` is an integer of up to 53 bits; `use`, `stream` and `substream` say what the numbers are for. */
  constructor(
    seed: number,
    private readonly use: number,
    private readonly stream: number,
    private readonly substream = 0,
  ) {
    this.key = [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]
  }

  /** The next word, 0 to 2^32 - 1. */
  next(): number {
    if (this.words.length === 0) {
      this.words = philox([this.index++ >>> 0, this.substream >>> 0, this.stream >>> 0, this.use], this.key).reverse()
    }
    return this.words.pop()!
  }

  /** An integer from 0 to before n, each equally likely. */
  below(n: number): number {
    // Words beyond the last whole multiple of n would favour small numbers.
    const limit = 2 ** 32 - (2 ** 32 % n)
    let word = this.next()
    while (word >= limit) word = this.next()
    return word % n
  }

  /** Shuffles in place (Fisher–Yates). */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; --i) {
      const j = this.below(i + 1)
      const item = items[i]!
      items[i] = items[j]!
      items[j] = item
    }
    return items
  }
}
