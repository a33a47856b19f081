import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Engine, TokenForest } from '../../lib/index.js'
import { tinyConfig, tinyEngine, tokenIds } from '../support/tiny-model.js'

let engine: Engine
let folder: string
const forest = new TokenForest()
forest.add(null, tokenIds(50, 1))

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'foretoken-save-'))
  engine = await tinyEngine()
})
afterAll(async () => {
  await engine.dispose()
  rmSync(folder, { recursive: true })
})

describe('a saved model', () => {
  test('is the same model when it is opened', async () => {
    const path = join(folder, 'whole')
    await engine.save(path, { dtype: 'float32' })
    await using opened = await Engine.open(path)
    expect(opened.parameters()).toEqual(engine.parameters())
    expect((await opened.score(forest)).logprobs).toEqual((await engine.score(forest)).logprobs)
  })

  test('may be split over several files', async () => {
    const path = join(folder, 'shards')
    await engine.save(path, { dtype: 'float32', maxShardBytes: 50_000 })
    expect(readdirSync(path).filter((name) => name.endsWith('.safetensors')).length).toBeGreaterThan(2)
    await using opened = await Engine.open(path)
    expect((await opened.score(forest)).logprobs).toEqual((await engine.score(forest)).logprobs)
  })

  test('in bfloat16 has the weights rounded to it', async () => {
    const path = join(folder, 'bfloat16')
    await engine.save(path, { dtype: 'bfloat16' })
    await using opened = await Engine.open(path)
    expect(opened.config.dtype).toBe('bfloat16')
    const [rounded, exact] = [await opened.read('lm_head.weight'), await engine.read('lm_head.weight')]
    // bfloat16 has 8 significant bits: rounding to nearest moves a number by at most 2^-9 of itself.
    for (const [i, value] of exact.entries()) {
      const bits = new Uint32Array(Float32Array.of(rounded[i]!).buffer)[0]!
      expect(bits & 0xffff).toBe(0)
      expect(Math.abs(rounded[i]! - value)).toBeLessThanOrEqual(Math.abs(value) * 2 ** -8)
    }
  })

  test('carries the tokenizer along', async () => {
    const first = join(folder, 'first')
    const second = join(folder, 'second')
    await engine.save(first)
    writeFileSync(join(first, 'tokenizer.json'), '{"a tokenizer": true}')
    await using opened = await Engine.open(first)
    await opened.save(second)
    expect(readFileSync(join(second, 'tokenizer.json'), 'utf8')).toBe('{"a tokenizer": true}')
    expect(JSON.parse(readFileSync(join(second, 'config.json'), 'utf8'))).toMatchObject({
      model_type: 'qwen3',
      vocab_size: tinyConfig.vocab_size,
    })
  })
})

describe('parameters', () => {
  test('that are written are those that are read and scored with', async () => {
    await using other = await tinyEngine({ seed: 9 })
    for (const { name } of engine.parameters()) await other.write(name, await engine.read(name))
    expect((await other.score(forest)).logprobs).toEqual((await engine.score(forest)).logprobs)
  })

  test('of a new model follow the initialisation that was asked for', async () => {
    await using other = await tinyEngine({ initialisation: { embedding: 0.5, head: 0.01, outputProjection: 0 } })
    const deviation = (values: Float32Array) => Math.hypot(...values) / Math.sqrt(values.length)
    const embedding = deviation(await other.read('model.embed_tokens.weight'))
    // 10,128 draws: the sample's deviation is within 5 % of the true one, seven of its standard errors.
    expect(Math.abs(embedding - 0.5)).toBeLessThan(0.025)
    expect(Math.abs(deviation(await other.read('lm_head.weight')) - 0.01)).toBeLessThan(0.0005)
    expect(new Set(await other.read('model.layers.0.mlp.down_proj.weight'))).toEqual(new Set([0]))
    expect(Math.abs(deviation(await other.read('model.layers.1.mlp.up_proj.weight')) - 0.15)).toBeLessThan(0.0075)
    expect(new Set(await other.read('model.norm.weight'))).toEqual(new Set([1]))
  })

  test('of the same seed are the same, of another seed are not', async () => {
    await using same = await tinyEngine({ seed: 1n })
    await using other = await tinyEngine({ seed: 2 })
    const name = 'model.layers.0.self_attn.q_proj.weight'
    expect(await same.read(name)).toEqual(await engine.read(name))
    expect(await other.read(name)).not.toEqual(await engine.read(name))
  })
})

describe('training', () => {
  test('makes a text likelier, update by update', async () => {
    await using learner = await tinyEngine()
    const losses: number[] = []
    for (let update = 0; update < 6; ++update) {
      losses.push((await learner.accumulate(forest, [{ kind: 'cross-entropy' }])).loss)
      const { step, gradNorm } = await learner.step({ learningRate: 3e-3 })
      expect(step).toBe(update + 1)
      expect(gradNorm).toBeGreaterThan(0)
    }
    expect(losses).toEqual([...losses].sort((a, b) => b - a))
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 2)
  })

  test('a per-token array may follow the forest or the segments', async () => {
    await using learner = await tinyEngine()
    const tree = new TokenForest()
    const context = tree.add(null, tokenIds(12, 1))
    const segments = [tree.add(context, tokenIds(4, 2)), tree.add(context, tokenIds(7, 3))]
    const { logprobs } = await learner.score(tree)
    const moved = logprobs.map((value, i) => value + 0.3 * Math.sin(i))
    const weights = logprobs.map((_, i) => i % 3)
    const advantages = logprobs.map((_, i) => Math.cos(i))
    const parts = (values: Float32Array) => segments.map((segment) => tree.slice(segment, values))
    const term = { kind: 'policy', segments } as const
    const whole = await learner.accumulate(tree, [
      { ...term, tokenAdvantages: advantages, oldLogprobs: moved, weights },
    ])
    const bits = await learner.read('lm_head.weight', 'gradient')
    await learner.zeroGradients()
    const pieces = await learner.accumulate(tree, [
      { ...term, tokenAdvantages: parts(advantages), oldLogprobs: parts(moved), weights: parts(weights) },
    ])
    expect(pieces).toEqual(whole)
    expect(await learner.read('lm_head.weight', 'gradient')).toEqual(bits)
  })
})
