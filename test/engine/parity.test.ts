import { mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Engine, TokenForest } from '../../lib/index.js'
import { type ExpectedModel, fixtureModels, neighbouringModels, trainingSequences } from '../support/expected-model.js'

// The expectations are computed in float64; float32 with its own order of sums differs in the sixth digit. Logits and
// log-probs of these models are of the size of 1 to 10, so that is some 1e-6 to 1e-5.
const LOGIT_TOLERANCE = 2e-5
const RELATIVE_TOLERANCE = 1e-4

const models = [...fixtureModels(), ...neighbouringModels()]
if (neighbouringModels().length === 0) console.info('no models beside the repository: testing its own fixtures only')

function forestOf(sequences: number[][]): TokenForest {
  const forest = new TokenForest()
  for (const sequence of sequences) forest.add(null, sequence)
  return forest
}

function largestDifference(actual: ArrayLike<number>, expected: ArrayLike<number | null>): number {
  expect(actual.length).toBe(expected.length)
  let largest = 0
  for (let i = 0; i < actual.length; ++i) {
    if (expected[i] === null) expect(actual[i]).toBeNaN()
    else largest = Math.max(largest, Math.abs(actual[i]! - expected[i]!))
  }
  return largest
}

function relativeDifference(actual: number, expected: number): number {
  return Math.abs(actual - expected) / Math.abs(expected)
}

/** A checkpoint that differs from another in the spelling of its config only. */
function withConfig(directory: string, config: string): string {
  const copy = mkdtempSync(join(tmpdir(), 'foretoken-spelling-'))
  for (const name of readdirSync(directory))
    if (name.includes('safetensors')) symlinkSync(join(directory, name), join(copy, basename(name)))
  symlinkSync(config, join(copy, 'config.json'))
  return copy
}

describe.each(models)('$name in float32 equals transformers', (model: ExpectedModel) => {
  let engine: Engine
  const forest = forestOf(model.sequences)

  beforeAll(async () => {
    engine = await Engine.open(model.directory)
  })
  afterAll(() => engine.dispose())

  test('logits', async () => {
    const indices = model.logits.map(({ sequence, position }) => forest.segment(sequence).begin + position)
    const { logits } = await engine.score(forest, { logits: indices })
    const V = engine.config.vocabSize
    for (const [i, { row }] of model.logits.entries())
      expect(largestDifference(logits!.subarray(i * V, (i + 1) * V), row)).toBeLessThan(LOGIT_TOLERANCE)
  })

  test.skipIf(model.logprobs.length === 0)('log-probs and entropies at each temperature', async () => {
    for (const { temperature, values } of model.logprobs) {
      const { logprobs } = await engine.score(forest, { temperature })
      for (const [s, row] of values.entries())
        if (row.length > 0) expect(largestDifference(forest.slice(s, logprobs), row)).toBeLessThan(LOGIT_TOLERANCE)
    }
    for (const { temperature, values } of model.entropies) {
      const { entropy } = await engine.score(forest, { temperature })
      for (const [s, row] of values.entries())
        expect(largestDifference(forest.slice(s, entropy), row)).toBeLessThan(LOGIT_TOLERANCE)
    }
  })

  test.skipIf(model.topEntropies === undefined)('entropy of the 16 most probable tokens', async () => {
    const { topEntropy } = await engine.score(forest, { topEntropy: 16 })
    for (const [s, row] of model.topEntropies!.entries())
      expect(largestDifference(forest.slice(s, topEntropy!), row)).toBeLessThan(LOGIT_TOLERANCE)
  })

  test('loss, and norm and entries of every gradient', async () => {
    await engine.zeroGradients()
    const { loss } = await engine.accumulate(forestOf(trainingSequences(model)), [{ kind: 'cross-entropy' }])
    expect(relativeDifference(loss, model.loss)).toBeLessThan(RELATIVE_TOLERANCE)
    expect(model.gradients.map(({ name }) => name).sort()).toEqual(
      engine
        .parameters()
        .map(({ name }) => name)
        .sort(),
    )
    let squares = 0
    for (const { name, norm, indices, values } of model.gradients) {
      const gradient = await engine.read(name, 'gradient')
      const actual = Math.hypot(...gradient)
      squares += actual * actual
      expect(relativeDifference(actual, norm), `norm of ${name}`).toBeLessThan(RELATIVE_TOLERANCE)
      // An entry's rounding error is that of the sums it comes from, which are of the tensor's typical size.
      const typical = norm / Math.sqrt(gradient.length)
      for (const [i, index] of indices.entries())
        expect(Math.abs(gradient[index]! - values[i]!), `${name}[${index}]`).toBeLessThanOrEqual(
          RELATIVE_TOLERANCE * Math.max(Math.abs(values[i]!), typical),
        )
    }
    expect(relativeDifference(Math.sqrt(squares), model.gradNorm)).toBeLessThan(RELATIVE_TOLERANCE)
    await engine.zeroGradients()
  })

  test.skipIf(model.greedy.length === 0)('greedy tokens', async () => {
    for (const { prompt, tokens } of model.greedy) {
      const { rollouts } = await engine.sample(forestOf([prompt]), {
        from: [0],
        temperature: 0,
        maxTokens: tokens.length,
      })
      expect([...rollouts[0]!.tokens]).toEqual(tokens)
    }
  })

  test.skipIf(model.otherConfig === undefined)('and the other spelling of its config is the same model', async () => {
    const directory = withConfig(model.directory, model.otherConfig!)
    const other = await Engine.open(directory)
    try {
      expect(other.config).toEqual(engine.config)
      expect((await other.score(forest)).logprobs).toEqual((await engine.score(forest)).logprobs)
    } finally {
      await other.dispose()
      rmSync(directory, { recursive: true })
    }
  })

  test('and in bfloat16 it is that, but for rounding', async () => {
    await using rounded = await Engine.open(model.directory, { dtype: 'bfloat16' })
    const exact = await engine.score(forest)
    const near = await rounded.score(forest)
    let squares = 0
    for (const [i, value] of exact.logprobs.entries())
      if (!Number.isNaN(value)) squares += (near.logprobs[i]! - value) ** 2
    // Each number rounded to 8 bits is off by up to 2^-9; over some ten layers of products, log-probs of the size of 5
    // come out off by about 0.01 (a wrong term or layer: by 0.1 and more).
    expect(Math.sqrt(squares / forest.length)).toBeLessThan(0.03)
  })

  // Last: it changes the weights.
  test('losses of four AdamW updates', async () => {
    const training = forestOf(trainingSequences(model))
    const losses: number[] = []
    const gradNorms: number[] = []
    for (let update = 0; update < model.adamw.losses.length; ++update) {
      losses.push((await engine.accumulate(training, [{ kind: 'cross-entropy' }])).loss)
      gradNorms.push((await engine.step(model.adamw.options)).gradNorm)
    }
    for (const [i, expected] of model.adamw.losses.entries())
      expect(relativeDifference(losses[i]!, expected), `loss ${i}`).toBeLessThan(RELATIVE_TOLERANCE)
    for (const [i, expected] of model.adamw.gradNorms.entries())
      expect(relativeDifference(gradNorms[i]!, expected), `gradient norm ${i}`).toBeLessThan(RELATIVE_TOLERANCE)
  })
})
