import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Engine, writeTokenizer } from '../../lib/index.js'
import { elementsOf } from '../run/read-html.js'

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

test('plot-difficulty colours every token of a text, and its page is whole', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'foretoken-plot-'))
  try {
    const config = {
      model_type: 'qwen3',
      vocab_size: 260,
      hidden_size: 32,
      intermediate_size: 32,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 16,
      // Shorter than the text, so that it is read in parts.
      max_position_embeddings: 65,
      eos_token_id: 259,
    }
    await using engine = await Engine.create(config, { seed: 3, initialisation: { embedding: 1, head: 0.5 } })
    await engine.save(join(folder, 'model'))
    await writeTokenizer(join(folder, 'model'))
    const text = `if (a < b && c > d) <script>alert("füße")</script>\n${'All work and no play. '.repeat(10)}`
    await writeFile(join(folder, 'text.txt'), text)
    const output = join(folder, 'out.html')
    const [line] = await run(
      () => import('../../examples/plot-difficulty.js'),
      join(folder, 'model'),
      join(folder, 'text.txt'),
      output,
    )
    const bytes = Buffer.byteLength(text)
    // The first byte has nothing before it.
    expect(line).toMatchObject({ output, positions: bytes - 1 })
    const page = await readFile(output, 'utf8')
    const spans = elementsOf(page).filter(({ name }) => name === 'span')
    expect(spans).toHaveLength(bytes)
    expect(spans.map((span) => span.text).join('')).toBe(text)
    expect(page.match(/title="[0-9.]+ nats"/g)).toHaveLength(bytes - 1)
    expect(page).not.toMatch(/<(?:script|link)[^>]*(?:src|href)=/)
  } finally {
    await rm(folder, { recursive: true })
  }
})
