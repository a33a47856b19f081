import { expect, test } from 'vitest'
import { fillBatch, hasSignal } from '../../lib/algorithm/groups.js'

test('a group has a signal when its rewards differ by more than rounding', () => {
  expect(hasSignal([0, 0, 1])).toBe(true)
  expect(hasSignal([0.3, 0.30000001])).toBe(true)
  expect(hasSignal([1, 1, 1])).toBe(false)
  expect(hasSignal([0.1 + 0.2, 0.3])).toBe(false)
  expect(hasSignal([5])).toBe(false)
  expect(hasSignal([])).toBe(false)
})

/** Draws from a list of groups that are true (signal) or false. */
function deck(cards: boolean[]) {
  const asked: number[] = []
  return {
    asked,
    draw: async (count: number) => {
      asked.push(count)
      return cards.splice(0, count)
    },
  }
}

test('without refill a batch is drawn once and keeps all its groups', async () => {
  const { draw, asked } = deck([true, false, false, true])
  const result = await fillBatch({ wanted: 4, tries: 1, draw, hasSignal: Boolean })
  expect(result).toEqual({ kept: [true, false, false, true], sampled: [true, false, false, true], tries: 1 })
  expect(asked).toEqual([4])
})

test('refill draws as many as are missing until the batch is full', async () => {
  const { draw, asked } = deck([true, false, false, true, false, true, true])
  const result = await fillBatch({ wanted: 4, tries: 10, draw, hasSignal: Boolean })
  expect(asked).toEqual([4, 2, 1])
  expect(result.kept).toEqual([true, true, true, true])
  expect(result.sampled).toHaveLength(7)
  expect(result.tries).toBe(3)
})

test('refill stops after the stated number of tries, and when there is nothing left to draw', async () => {
  const never = deck(new Array(100).fill(false))
  const given = await fillBatch({ wanted: 4, tries: 3, draw: never.draw, hasSignal: Boolean })
  expect(given.kept).toEqual([])
  expect(never.asked).toEqual([4, 4, 4])

  const short = deck([true])
  const rest = await fillBatch({ wanted: 4, tries: 9, draw: short.draw, hasSignal: Boolean })
  expect(rest.kept).toEqual([true])
  expect(short.asked).toEqual([4, 3])
})
