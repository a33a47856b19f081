import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { forwardFlops } from '../../lib/bench/flops.js'
import { shapes } from '../../lib/bench/shapes.js'
import { Engine } from '../../lib/engine/engine.js'
import { foretoken } from './foretoken.js'
import { makeTinyWorld, type TinyWorld, tinyConfig } from './tiny-world.js'

let world: TinyWorld
beforeAll(async () => {
  world = await makeTinyWorld()
})
afterAll(() => world.remove())

describe('foretoken bench', () => {
  it('measures a model and relates it to the product of this machine', async () => {
    const args = ['bench', 'model', '--device', 'cpu', '--dtype', 'float32', '--seconds', '0', '--json']
    const { status, stdout, stderr } = await foretoken(args, world.folder)
    expect(status, stderr).toBe(0)
    const result = JSON.parse(stdout)
    expect(result).toMatchObject({ model: 'model', device: 'cpu', dtype: 'float32' })
    expect(result.measurements.map(({ name }: { name: string }) => name)).toEqual(['training', 'rollouts', 'GRPO step'])
    const tokens = { training: 8 * 192, rollouts: 32 * 64, 'GRPO step': 4 * (128 + 8 * 64) }
    for (const { name, seconds, tokensPerSecond, flops, share, repetitions } of result.measurements) {
      expect(repetitions).toBe(2)
      expect(tokensPerSecond * seconds).toBeCloseTo(tokens[name as keyof typeof tokens], 6)
      expect(share).toBe(flops / result.ceilingFlops)
      expect(share).toBeGreaterThan(0)
    }
  })

  it('refuses a shape that does not exist, and a model together with a shape', async () => {
    const unknown = await foretoken(['bench', '--shape', 'qwen3-13m'], world.folder)
    expect(unknown.status).toBe(1)
    expect(unknown.stderr).toContain('there is no shape qwen3-13m; did you mean qwen3-12m?')
    const both = await foretoken(['bench', 'model', '--shape', 'qwen3-12m'], world.folder)
    expect(both.status).toBe(2)
  })
})

describe('the operations of a token', () => {
  it('are 2 for each weight of a product, and those of attention', async () => {
    // C 16, F 32, V 260, one layer with 2 heads and 1 key-value head of size 8.
    const layer = 16 * 16 + 2 * 16 * 8 + 16 * 16 + 3 * 16 * 32
    for (const tied of [false, true]) {
      await using engine = await Engine.create({ ...tinyConfig, tie_word_embeddings: tied })
      expect(forwardFlops(engine, 100)).toBe(2 * (layer + 260 * 16) + 2 * 16 * 100)
    }
  })

  it('belong to shapes of the published size', async () => {
    await using engine = await Engine.create(shapes['qwen3-12m'])
    const elements = engine.parameters().map(({ shape }) => shape.reduce((product, n) => product * n, 1))
    expect(elements.reduce((sum, n) => sum + n, 0) / 1e6).toBeCloseTo(12.6, 1)
  })
})
