import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { type Engine, type LossTerm, type Rollout, type TensorKind, TokenForest } from '../../lib/index.js'
import { tinyEngine, tokenIds } from '../support/tiny-model.js'

// Float32Array equality in vitest is Object.is of every entry: all of these are statements about bits.

const folders: string[] = []
function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'foretoken-state-'))
  folders.push(folder)
  return folder
}
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true })
})

/** A document cut twice, a question at each cut, three answers to each, and unrelated text before and between. */
function sharedForest(): TokenForest {
  const forest = new TokenForest()
  forest.add(null, tokenIds(19, 1))
  const opening = forest.add(null, tokenIds(70, 2))
  const first = forest.add(opening, tokenIds(5, 3))
  const sequel = forest.add(opening, tokenIds(64, 4))
  for (let i = 0; i < 3; ++i) forest.add(first, tokenIds(7 + 9 * i, 10 + i))
  forest.add(null, tokenIds(130, 5))
  const second = forest.add(sequel, tokenIds(6, 6))
  for (let i = 0; i < 3; ++i) forest.add(second, tokenIds(3 + 11 * i, 20 + i))
  return forest
}

function leavesOf(forest: TokenForest): number[] {
  const parents = new Set<number | null>()
  for (let s = 0; s < forest.segmentCount; ++s) parents.add(forest.segment(s).parent)
  return Array.from({ length: forest.segmentCount }, (_, s) => s).filter((s) => !parents.has(s))
}

function single(ids: ArrayLike<number>): TokenForest {
  const forest = new TokenForest()
  forest.add(null, ids)
  return forest
}

/** What the forest's log-probs say about the path to a leaf, as one sequence. */
function alongPath(forest: TokenForest, leaf: number, perToken: Float32Array): Float32Array {
  return Float32Array.from(forest.path(leaf).flatMap((segment) => [...forest.slice(segment, perToken)]))
}

async function withEngines<Result>(engines: Promise<Engine>[], use: (...engines: Engine[]) => Promise<Result>) {
  const opened = await Promise.all(engines)
  try {
    return await use(...opened)
  } finally {
    await Promise.all(opened.map((engine) => engine.dispose()))
  }
}

describe.each(['float32', 'bfloat16'] as const)(
  'in %s, a log-prob depends on its own prefix and on nothing else',
  (dtype) => {
    test('a forest and its flattened sequences score alike, alone and in a batch', () =>
      withEngines([tinyEngine({ dtype })], async (engine) => {
        const forest = sharedForest()
        const { logprobs, entropy } = await engine.score(forest)
        const leaves = leavesOf(forest)
        const batch = new TokenForest()
        for (const leaf of leaves) batch.add(null, forest.flatten(leaf))
        const inBatch = await engine.score(batch)
        for (const [i, leaf] of leaves.entries()) {
          const alone = await engine.score(single(forest.flatten(leaf)))
          expect(alone.logprobs).toEqual(alongPath(forest, leaf, logprobs))
          expect(alone.entropy).toEqual(alongPath(forest, leaf, entropy))
          expect(alone.logprobs).toEqual(batch.slice(i, inBatch.logprobs))
        }
      }))

    test('a prefix scores as the beginning of the whole', () =>
      withEngines([tinyEngine({ dtype })], async (engine) => {
        const ids = tokenIds(300, 7)
        const { logprobs } = await engine.score(single(ids))
        for (const length of [1, 2, 63, 64, 65, 128, 200, 299])
          expect((await engine.score(single(ids.slice(0, length)))).logprobs).toEqual(logprobs.slice(0, length))
      }))

    test('the size of a micro-batch and the number of threads change no bit', () =>
      withEngines([tinyEngine({ dtype })], async (engine) => {
        const forest = sharedForest()
        const { logprobs, entropy } = await engine.score(forest, { temperature: 0.8 })
        for (const batchTokens of [1, 37, 256])
          for (const threads of [1, 2])
            await withEngines([tinyEngine({ dtype, batchTokens, threads })], async (other) => {
              const scored = await other.score(forest, { temperature: 0.8 })
              expect(scored.logprobs).toEqual(logprobs)
              expect(scored.entropy).toEqual(entropy)
            })
      }))

    test('what was sampled scores as it was sampled, at every temperature', () =>
      withEngines([tinyEngine({ dtype })], async (engine) => {
        for (const temperature of [1, 0.7, 1.3]) {
          const forest = sharedForest()
          const from = [0, 2, 8]
          const { rollouts } = await engine.sample(forest, {
            from,
            n: 5,
            maxTokens: 40,
            temperature,
            topP: 0.95,
            seed: 3,
          })
          const added = rollouts.map((rollout) => forest.add(rollout.segment, rollout.tokens))
          const { logprobs } = await engine.score(forest, { temperature })
          for (const [i, segment] of added.entries())
            expect(forest.slice(segment, logprobs)).toEqual(rollouts[i]!.logprobs)
        }
      }))

    test('so the ratio of an update on fresh rollouts is exactly 1', () =>
      withEngines([tinyEngine({ dtype, batchTokens: 100 })], async (engine) => {
        const forest = sharedForest()
        const { rollouts } = await engine.sample(forest, { from: [2, 8], n: 4, maxTokens: 30, seed: 5 })
        const segments = rollouts.map((rollout) => forest.add(rollout.segment, rollout.tokens))
        const advantages = segments.map((_, i) => (i % 2 === 0 ? 1 : -1))
        const oldLogprobs = rollouts.map(({ logprobs }) => logprobs)
        const term: LossTerm = { kind: 'policy', segments, advantages, oldLogprobs }
        const { terms } = await engine.accumulate(forest, [term])
        expect(terms[0]).toMatchObject({ ratioMean: 1, ratioMax: 1, approximateKl: 0, clipRegion: 0 })
      }))
  },
)

describe.each(['float32', 'bfloat16'] as const)(
  'in %s, a rollout depends on its context, seed and stream only',
  (dtype) => {
    const options = { maxTokens: 24, temperature: 1, seed: 11 }
    const same = (a: Rollout, b: Rollout) => {
      expect([...a.tokens]).toEqual([...b.tokens])
      expect(a.logprobs).toEqual(b.logprobs)
      expect(a.stop).toBe(b.stop)
    }

    test('whatever contexts, how many rollouts and how many at once are around it', () =>
      withEngines([tinyEngine({ dtype })], async (engine) => {
        const forest = sharedForest()
        const { rollouts } = await engine.sample(forest, { ...options, from: [2, 5, 8], n: 4 })
        expect(new Set(rollouts.map(({ tokens }) => tokens.join())).size).toBe(rollouts.length)
        for (const maxSequences of [1, 3, 5]) {
          const limited = await engine.sample(forest, { ...options, from: [2, 5, 8], n: 4, maxSequences })
          for (const [i, rollout] of limited.rollouts.entries()) same(rollout, rollouts[i]!)
        }
        // The third context alone, flattened, with the streams that it had among the others.
        const alone = await engine.sample(single(forest.flatten(8)), {
          ...options,
          from: [0],
          n: 2,
          rolloutIds: [9, 11],
        })
        same(alone.rollouts[0]!, rollouts[9]!)
        same(alone.rollouts[1]!, rollouts[11]!)
      }))

    test('a small store serves the same rollouts, a few at a time', () =>
      withEngines([tinyEngine({ dtype }), tinyEngine({ dtype, cacheTokens: 272 })], async (roomy, narrow) => {
        const forest = sharedForest()
        const request = { ...options, from: [2, 5, 8], n: 6, maxTokens: 60 }
        const expected = await roomy.sample(forest, request)
        const actual = await narrow.sample(forest, request)
        expect(actual.statistics.decodeSteps).toBeGreaterThan(expected.statistics.decodeSteps)
        for (const [i, rollout] of actual.rollouts.entries()) same(rollout, expected.rollouts[i]!)
      }))

    test('and another seed gives others', () =>
      withEngines([tinyEngine({ dtype })], async (engine) => {
        const forest = sharedForest()
        const sample = (seed: number | bigint) => engine.sample(forest, { ...options, from: [8], n: 2, seed })
        const [a, b, c] = [await sample(1), await sample(2n ** 63n), await sample(1n)]
        expect([...a.rollouts[0]!.tokens]).not.toEqual([...b.rollouts[0]!.tokens])
        same(a.rollouts[0]!, c.rollouts[0]!)
      }))
  },
)

async function gradientsOf(engine: Engine): Promise<Map<string, Float32Array>> {
  const gradients = new Map<string, Float32Array>()
  for (const { name } of engine.parameters()) gradients.set(name, await engine.read(name, 'gradient'))
  return gradients
}

/** A short stand-in for the bits of each tensor, so that a failure names the tensors and not their entries. */
async function bitsOf(engine: Engine, kind: TensorKind): Promise<Record<string, string>> {
  const bits: Record<string, string> = {}
  for (const { name } of engine.parameters())
    bits[name] = createHash('sha256')
      .update(await engine.read(name, kind))
      .digest('hex')
      .slice(0, 12)
  return bits
}

/** A cross-entropy over all tokens and a policy term over the leaves, with ratios on both sides of the clip. */
function termsFor(forest: TokenForest, logprobs: Float32Array): LossTerm[] {
  const leaves = leavesOf(forest)
  return [
    { kind: 'cross-entropy', coefficient: 0.5 },
    {
      kind: 'policy',
      segments: leaves,
      advantages: leaves.map((_, i) => Math.sin(i + 1)),
      oldLogprobs: logprobs.map((value, i) => value + 0.4 * Math.sin(3 * i)),
      referenceLogprobs: logprobs.map((value, i) => value + 0.2 * Math.cos(i)),
      weights: logprobs.map((value) => (Number.isNaN(value) ? 0 : 1)),
      clip: [0.2, 0.28],
      kl: { coefficient: 0.1 },
      entropyCoefficient: 0.01,
    },
  ]
}

describe.each(['float32', 'bfloat16'] as const)('gradients in %s', (dtype) => {
  test('are the same bits with and without recomputation', () =>
    withEngines([tinyEngine({ dtype, batchTokens: 128 })], async (engine) => {
      const forest = sharedForest()
      const terms = termsFor(forest, (await engine.score(forest)).logprobs)
      const kept = await engine.accumulate(forest, terms, { recompute: false })
      const expected = await bitsOf(engine, 'gradient')
      await engine.zeroGradients()
      const recomputed = await engine.accumulate(forest, terms, { recompute: true })
      expect(recomputed).toEqual(kept)
      expect(await bitsOf(engine, 'gradient')).toEqual(expected)
    }))

  test('are the same bits from what sampling has kept, without a forward pass', () =>
    withEngines([tinyEngine({ dtype, batchTokens: 128 })], async (engine) => {
      const forest = sharedForest()
      const from = leavesOf(forest).slice(0, 3)
      const { rollouts } = await engine.sample(forest, { from, n: 4, maxTokens: 12, seed: 3 })
      const leaves = rollouts.map(({ segment, tokens }) => forest.add(segment, tokens))
      const terms: LossTerm[] = [
        { kind: 'policy', segments: leaves, advantages: leaves.map((_, i) => Math.cos(i)) },
        {
          kind: 'cross-entropy',
          coefficient: 0.1,
          weights: new Float32Array(forest.length).fill(0).fill(1, forest.segment(leaves[0]!).begin),
        },
      ]
      const computed = await engine.accumulate(forest, terms)
      const expected = await bitsOf(engine, 'gradient')
      await engine.zeroGradients()
      const contexts = sharedForest()
      const again = await engine.sample(contexts, { from, n: 4, maxTokens: 12, seed: 3, keepActivations: true })
      expect(again.rollouts).toEqual(rollouts)
      expect(again.statistics.keptTokens).toBe(again.statistics.prefillTokens + 12 * 11)
      const kept = await engine.accumulate(forest, terms)
      expect(kept).toEqual({ ...computed, keptTokens: computed.tokens })
      expect(await bitsOf(engine, 'gradient')).toEqual(expected)
    }))

  test('are the same bits with one and two threads', () =>
    withEngines([tinyEngine({ dtype }), tinyEngine({ dtype, threads: 2 })], async (one, two) => {
      const forest = sharedForest()
      const terms = termsFor(forest, (await one.score(forest)).logprobs)
      expect(await two.accumulate(forest, terms)).toEqual(await one.accumulate(forest, terms))
      expect(await bitsOf(two, 'gradient')).toEqual(await bitsOf(one, 'gradient'))
    }))
})

/** Largest difference of two gradients in units of the first one's norm. */
function distance(expected: Float32Array, actual: Float32Array): number {
  const difference = expected.map((value, i) => value - actual[i]!)
  return Math.hypot(...difference) / Math.hypot(...expected)
}

describe('sharing and micro-batches change the order of the sums of a gradient, so rounding only', () => {
  // Sums of some hundred float32 terms in another order: a few units in the last of 24 bits, relative to the norm.
  const ROUNDING = 2e-5

  test('a shared forest has the gradient of its flattened form, and goes through the network once', () =>
    withEngines([tinyEngine()], async (engine) => {
      const forest = sharedForest()
      const leaves = leavesOf(forest)
      const advantages = leaves.map((_, i) => Math.cos(i))
      const shared = await engine.accumulate(forest, [{ kind: 'policy', segments: leaves, advantages }])
      const expected = await gradientsOf(engine)
      await engine.zeroGradients()
      const flat = new TokenForest()
      // The same terms: the context of a leaf is a root of its own, the leaf a segment below it.
      const segments = leaves.map((leaf) => {
        const { parent, begin, end } = forest.segment(leaf)
        const tokens = forest.tokens.slice(begin, end)
        return flat.add(parent === null ? null : flat.add(null, forest.flatten(parent)), tokens)
      })
      const flattened = await engine.accumulate(flat, [{ kind: 'policy', segments, advantages }])
      // The last token of a leaf predicts nothing, and does not go through the network.
      expect(shared.tokens).toBe(forest.length - leaves.length)
      expect(flattened.tokens).toBe(flat.length - leaves.length)
      expect(flattened.loss).toBeCloseTo(shared.loss, 6)
      for (const [name, gradient] of await gradientsOf(engine))
        expect(distance(expected.get(name)!, gradient), name).toBeLessThan(ROUNDING)
    }))

  test('a batch in one piece has the gradient and the loss of the batch in pieces', () =>
    withEngines([tinyEngine()], async (engine) => {
      const forest = sharedForest()
      const terms = termsFor(forest, (await engine.score(forest)).logprobs)
      const whole = await engine.accumulate(forest, terms, { batchTokens: 4096 })
      const expected = await gradientsOf(engine)
      for (const batchTokens of [64, 200]) {
        await engine.zeroGradients()
        const pieces = await engine.accumulate(forest, terms, { batchTokens })
        expect(pieces.microBatches).toBeGreaterThan(whole.microBatches)
        expect(pieces.loss).toBeCloseTo(whole.loss, 6)
        for (const [name, gradient] of await gradientsOf(engine))
          expect(distance(expected.get(name)!, gradient), name).toBeLessThan(ROUNDING)
      }
    }))
})

describe.each([
  ['float32', 'float32'],
  ['bfloat16', 'float32'],
  ['bfloat16', 'bfloat16'],
] as const)('a run in %s with its state in %s', (dtype, stateDtype) => {
  const step = { learningRate: 3e-3, weightDecay: 0.1, maxGradNorm: 1 }

  async function update(engine: Engine, round: number): Promise<unknown> {
    const forest = new TokenForest()
    const context = forest.add(null, tokenIds(30, 100 + round))
    const { rollouts } = await engine.sample(forest, { from: [context], n: 6, maxTokens: 12, seed: round })
    const segments = rollouts.map(({ segment, tokens }) => forest.add(segment, tokens))
    const advantages = segments.map((_, i) => i - 2.5)
    const accumulated = await engine.accumulate(forest, [
      { kind: 'policy', segments, advantages },
      { kind: 'cross-entropy', coefficient: 0.1 },
    ])
    await engine.updateAverage(0.9)
    return { accumulated, ...(await engine.step(step)), rollouts }
  }

  test('continues from its saved state with the same bits', () =>
    withEngines(
      [tinyEngine({ dtype, stateDtype }), tinyEngine({ dtype, stateDtype, seed: 2 })],
      async (engine, resumed) => {
        await engine.keepReference()
        for (let round = 0; round < 3; ++round) await update(engine, round)
        // In the middle of an update too: gradients that wait for their step belong to the state.
        await engine.accumulate(sharedForest(), [{ kind: 'cross-entropy' }])
        const folder = join(temporaryFolder(), 'state')
        await engine.saveTrainingState(folder)
        await resumed.loadTrainingState(folder)
        expect(await bitsOf(resumed, 'gradient')).toEqual(await bitsOf(engine, 'gradient'))
        for (let round = 3; round < 6; ++round)
          expect(await update(resumed, round)).toEqual(await update(engine, round))
        expect(await bitsOf(resumed, 'weight')).toEqual(await bitsOf(engine, 'weight'))
        const forest = sharedForest()
        for (const weights of ['current', 'reference', 'average'] as const)
          expect(await resumed.score(forest, { weights })).toEqual(await engine.score(forest, { weights }))
      },
    ))

  test('changes its weights, and keeps the reference', () =>
    withEngines([tinyEngine({ dtype, stateDtype })], async (engine) => {
      const forest = sharedForest()
      const before = await engine.score(forest)
      await engine.keepReference()
      await update(engine, 0)
      expect((await engine.score(forest)).logprobs).not.toEqual(before.logprobs)
      expect((await engine.score(forest, { weights: 'reference' })).logprobs).toEqual(before.logprobs)
    }))
})
