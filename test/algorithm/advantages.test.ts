import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { type AdvantageName, advantages, computeAdvantages } from '../../lib/algorithm/advantages.js'

interface Fixture {
  groups: { rewards: number[]; lengths: number[]; advantages: Record<AdvantageName, number[]> }[]
}
const fixture = JSON.parse(readFileSync(new URL('../fixtures/advantages.json', import.meta.url), 'utf8')) as Fixture

test.each(Object.keys(advantages) as AdvantageName[])('%s advantages are those of torch', (name) => {
  const values = computeAdvantages(name, fixture.groups)
  fixture.groups.forEach((group, g) => {
    expect(values[g]).toHaveLength(group.rewards.length)
    group.advantages[name].forEach((expected, i) => {
      // The fixture is printed to 15 digits; differences of rewards lose as many as they cancel.
      expect(Math.abs(values[g]![i]! - expected)).toBeLessThan(1e-13 + 1e-8 * Math.abs(expected))
    })
  })
})

test('grpo with one right answer of eight gives the published values', () => {
  const [group] = computeAdvantages('grpo', [{ rewards: [1, 0, 0, 0, 0, 0, 0, 0], lengths: new Array(8).fill(1) }])
  expect(group![0]).toBeCloseTo(2.475, 3)
  expect(group![1]).toBeCloseTo(-0.354, 3)
})

test.each(Object.keys(advantages) as AdvantageName[])('%s gives exactly 0 where all rewards are equal', (name) => {
  // 0.1 + 0.2 is not 0.3 in its last bit: no signal all the same.
  const groups = [
    { rewards: [0.3, 0.1 + 0.2, 0.3], lengths: [1, 20, 3] },
    { rewards: [7], lengths: [4] },
    { rewards: [1, 0], lengths: [1, 1] },
  ]
  const [equal, single, mixed] = computeAdvantages(name, groups)
  expect([...equal!, ...single!]).toEqual([0, 0, 0, 0])
  expect(mixed![0]).toBeGreaterThan(0)
})
