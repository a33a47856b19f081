import { existsSync } from 'node:fs'
import { afterEach, describe, expect, test, vi } from 'vitest'

const model = new URL('../../../shared/models/stories260K/hf', import.meta.url).pathname
const text = new URL('../../../shared/data/tiny_shakespeare.txt', import.meta.url).pathname
const missing = !existsSync(model) || !existsSync(text)
if (missing) console.warn('skipped: the examples need ../shared/models/stories260K and ../shared/data')

const argv = process.argv
afterEach(() => {
  process.argv = argv
  vi.restoreAllMocks()
})

/** Runs an example as it stands, with its arguments, and gives what it printed. */
async function run(load: () => Promise<unknown>, ...args: string[]): Promise<Record<string, unknown>[]> {
  const printed: Record<string, unknown>[] = []
  vi.spyOn(console, 'log').mockImplementation((line) => printed.push(line))
  process.argv = [argv[0]!, 'example.ts', ...args]
  await load()
  return printed
}

describe.skipIf(missing)('the examples', () => {
  test('own-loop: what is rewarded grows, and reading gives the bits of sampling', async () => {
    const lines = await run(() => import('../../examples/own-loop.js'), model)
    expect(lines).toHaveLength(5)
    for (const line of lines) expect(line.exact).toBe(true)
    expect(Number(lines[4]!.vowels)).toBeGreaterThan(Number(lines[0]!.vowels))
  })

  test('rpt-loop predicts plain text, and some predictions come true', async () => {
    const lines = await run(() => import('../../examples/rpt-loop.js'), model, text, '3')
    expect(lines.map(({ step }) => step)).toEqual([0, 1, 2])
    expect(lines.some(({ reward }) => Number(reward) > 0)).toBe(true)
    expect(lines.some(({ gradNorm }) => Number(gradNorm) > 0)).toBe(true)
  })

  test('custom-reward trains with its reward', async () => {
    const lines = await run(() => import('../../examples/custom-reward.js'), model, text)
    expect(lines.map(({ step, reward }) => [step, Number.isFinite(reward)])).toEqual([
      [1, true],
      [2, true],
    ])
  })

  test('custom-method trains with its method', async () => {
    const lines = await run(() => import('../../examples/custom-method.js'), model, text)
    expect(lines.map(({ step }) => step)).toEqual([1, 2])
    for (const { right } of lines) expect(right).toBeGreaterThanOrEqual(0)
  })
})
