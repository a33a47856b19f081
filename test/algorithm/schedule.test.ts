import { expect, test } from 'vitest'
import { learningRateFactor } from '../../lib/algorithm/schedule.js'

const factors = (schedule: Parameters<typeof learningRateFactor>[0], steps: number) =>
  Array.from({ length: steps }, (_, step) => learningRateFactor(schedule, step, steps))

test('a constant schedule is 1 at every step', () => {
  expect(factors({}, 3)).toEqual([1, 1, 1])
})

test('a warm-up rises in equal steps and begins above 0', () => {
  expect(factors({ warmup: 4 }, 6)).toEqual([0.25, 0.5, 0.75, 1, 1, 1])
})

test('a linear schedule falls in equal steps to its final share', () => {
  expect(factors({ kind: 'linear', final: 0.2 }, 5)).toEqual([1, 0.8, 0.6000000000000001, 0.4, 0.2])
})

test('a cosine schedule is half way at half time and ends at its final share', () => {
  const values = factors({ kind: 'cosine', warmup: 2, final: 0.1 }, 7)
  expect(values.slice(0, 3)).toEqual([0.5, 1, 1])
  expect(values[4]).toBeCloseTo(0.55, 12)
  expect(values[6]).toBeCloseTo(0.1, 12)
})

test('a schedule out of range is refused', () => {
  expect(() => learningRateFactor({ warmup: -1 }, 0, 10)).toThrow(/warmup is -1/)
  expect(() => learningRateFactor({ kind: 'linear', final: 2 }, 0, 10)).toThrow(/final is 2/)
})
