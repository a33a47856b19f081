import { expect, test } from 'vitest'
import { Meter } from '../../lib/algorithm/meter.js'
import { describeDifferences } from '../../lib/train/settings.js'
import { Stopwatch } from '../../lib/train/stopwatch.js'

test('a part within another is counted once', async () => {
  let now = 0
  const watch = new Stopwatch(() => now)
  const pass = (milliseconds: number) => {
    now += milliseconds
  }
  pass(1000)
  await watch.time('update', async () => {
    pass(200)
    await watch.time('score', () => pass(3000))
    pass(50)
  })
  pass(1000)
  await expect(watch.time('text', () => Promise.reject(new Error('no')))).rejects.toThrow('no')
  await watch.time('text', () => pass(500))
  expect(watch.seconds).toEqual({ text: 0.5, score: 3, rollouts: 0, reward: 0, update: 0.25 })
})

test('FLOPs are 6 per parameter and trained token and 2 per other token', () => {
  const meter = new Meter(1000)
  Object.assign(meter, { trained: 7, generated: 5, prefilled: 3, scored: 2 })
  expect([meter.tokens, meter.flops]).toEqual([17, 1000 * (42 + 20)])
})

test('differences are named by their path', () => {
  const before = { a: 1, b: { c: [1, 2], d: 'x' }, same: { e: null } }
  const after = { a: 1, b: { c: [1, 3], f: true }, same: { e: null } }
  expect(describeDifferences(before, after)).toEqual(['b.c: [1,2] → [1,3]', 'b.d: "x" → absent', 'b.f: absent → true'])
  expect(describeDifferences(before, structuredClone(before))).toEqual([])
})
