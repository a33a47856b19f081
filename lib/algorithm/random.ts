import { PhiloxStream } from '../corpus/philox.js'

/** What a run draws random numbers for; the corpus has the numbers below 32. */
export const drawFor = { rollouts: 32, evaluation: 33, mixture: 34 } as const

/** A seed of 53 bits that depends on the run's seed, on what it is for, and on two numbers such as step and try. */
export function deriveSeed(seed: number, use: number, first: number, second = 0): number {
  const random = new PhiloxStream(seed, use, first, second)
  return (random.next() & 0x1fffff) * 2 ** 32 + random.next()
}
