import { existsSync } from 'node:fs'
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { Engine, TokenForest, writeTokenizer } from '../../lib/index.js'
import { elementsOf } from '../run/read-html.js'

const shared = new URL('../../../shared/models/stories260K/hf', import.meta.url).pathname
if (!existsSync(shared)) console.warn('skipped: one test of the examples needs ../shared/models/stories260K')
const licence = new URL('../../LICENSE', import.meta.url).pathname

const config = {
  model_type: 'qwen3',
  vocab_size: 260,
  hidden_size: 48,
  intermediate_size: 96,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 24,
  max_position_embeddings: 256,
  tie_word_embeddings: false,
  eos_token_id: 259,
}

let folder: string
let model: string
let text: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'foretoken-examples-'))
  model = join(folder, 'model')
  text = join(folder, 'text.txt')
  await copyFile(licence, text)
  // Bytes of a text, learned just long enough to guess a frequent one now and then.
  await using engine = await Engine.create(config, { seed: 3, initialisation: { embedding: 1 } })
  const bytes = await readFile(text)
  for (let step = 0; step < 60; ++step) {
    const forest = new TokenForest()
    for (let i = 0; i < 8; ++i) forest.add(null, bytes.subarray((step * 8 + i) * 20, (step * 8 + i) * 20 + 128))
    await engine.accumulate(forest, [{ kind: 'cross-entropy' }])
    await engine.step({ learningRate: 3e-3 })
  }
  await engine.save(model)
  await writeTokenizer(model)
})
afterAll(() => rm(folder, { recursive: true }))

const argv = process.argv
afterEach(() => {
  process.argv = argv
  vi.restoreAllMocks()
  // An example is a program: importing it again runs it again.
  vi.resetModules()
})

/** Runs an example as it stands, with its arguments, and gives what it printed. */
async function run(load: () => Promise<unknown>, ...args: string[]): Promise<Record<string, unknown>[]> {
  const printed: Record<string, unknown>[] = []
  vi.spyOn(console, 'log').mockImplementation((line) => printed.push(line))
  process.argv = [argv[0]!, 'example.ts', ...args]
  await load()
  return printed
}

describe('the examples', () => {
  test('own-loop: reading gives the bits of sampling, and every step moves the weights', async () => {
    const lines = await run(() => import('../../examples/own-loop.js'), model)
    expect(lines).toHaveLength(5)
    for (const line of lines) expect([line.exact, Number(line.gradNorm) > 0]).toEqual([true, true])
  })

  test.skipIf(!existsSync(shared))('own-loop: what is rewarded grows', async () => {
    const lines = await run(() => import('../../examples/own-loop.js'), shared)
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

  test('plot-difficulty colours every token of a text, and its page is whole', async () => {
    // Longer than the model's longest context, so that it is read in parts.
    const source = `if (a < b && c > d) <script>alert("füße")</script>\n${'All work and no play. '.repeat(20)}`
    const file = join(folder, 'odd.txt')
    await writeFile(file, source)
    const output = join(folder, 'out.html')
    const [line] = await run(() => import('../../examples/plot-difficulty.js'), model, file, output)
    const bytes = Buffer.byteLength(source)
    expect(bytes).toBeGreaterThan(config.max_position_embeddings)
    // The first byte has nothing before it.
    expect(line).toMatchObject({ output, positions: bytes - 1 })
    const page = await readFile(output, 'utf8')
    const spans = elementsOf(page).filter(({ name }) => name === 'span')
    expect(spans).toHaveLength(bytes)
    expect(spans.map((span) => span.text).join('')).toBe(source)
    expect(page.match(/title="[0-9.]+ nats"/g)).toHaveLength(bytes - 1)
    expect(page).not.toMatch(/<(?:script|link)[^>]*(?:src|href)=/)
  })
})
