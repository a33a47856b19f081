import type { Engine } from '../engine/engine.js'
import type { LossTerm } from '../engine/loss-terms.js'
import { TokenForest } from '../engine/token-forest.js'
import { forwardFlops } from './flops.js'

/** How fast one kind of work is. */
export interface Measurement {
  name: 'training' | 'rollouts' | 'GRPO step'
  /** What was done, in words. */
  work: string
  /** Seconds of the fastest repetition: on a shared machine the least disturbed. */
  seconds: number
  repetitions: number
  /** Tokens trained on, or sampled. */
  tokensPerSecond: number
  /** Floating-point operations per second that the work needs at least. */
  flops: number
}

/** What takes part in a measurement: `seconds` is how long each kind of work is repeated. */
interface Work {
  engine: Engine
  seconds: number
}

/** Updates on sequences of their own. */
export async function measureTraining({ engine, seconds }: Work): Promise<Measurement> {
  const [sequences, length] = [8, 192]
  const forest = new TokenForest()
  for (let i = 0; i < sequences; ++i) forest.add(null, someTokens(engine, length, i))
  const time = await fastest(seconds, async () => {
    await engine.accumulate(forest, [{ kind: 'cross-entropy' }])
    await engine.step({ learningRate: 1e-5, maxGradNorm: 1 })
  })
  const tokens = sequences * length
  return {
    ...{ name: 'training', work: `${sequences} sequences of ${length} tokens`, ...time },
    tokensPerSecond: tokens / time.seconds,
    // Backward costs twice what forward does.
    flops: (3 * tokens * forwardFlops(engine, length)) / time.seconds,
  }
}

/** One continuation of each of many prompts. */
export async function measureRollouts({ engine, seconds }: Work): Promise<Measurement> {
  const [prompts, length, fresh] = [32, 128, 64]
  const forest = new TokenForest()
  const from = Array.from({ length: prompts }, (_, i) => forest.add(null, someTokens(engine, length, i)))
  const time = await fastest(seconds, () => engine.sample(forest, { from, maxTokens: fresh }))
  return {
    ...{ name: 'rollouts', work: `${prompts} prompts of ${length} tokens, ${fresh} new ones each`, ...time },
    tokensPerSecond: (prompts * fresh) / time.seconds,
    flops: (prompts * (length + fresh) * forwardFlops(engine, length)) / time.seconds,
  }
}

/** Rollouts of shared prompts and one update on them, as a step of `foretoken train` does them. */
export async function measureGrpoStep({ engine, seconds }: Work): Promise<Measurement> {
  const [contexts, length, group, fresh] = [4, 128, 8, 64]
  let forwardPasses = 0
  const time = await fastest(seconds, async () => {
    const forest = new TokenForest()
    const from = Array.from({ length: contexts }, (_, i) => forest.add(null, someTokens(engine, length, i)))
    const { rollouts } = await engine.sample(forest, {
      from,
      n: group,
      maxTokens: fresh,
      temperature: 0.8,
      keepActivations: true,
    })
    const segments = rollouts.map(({ segment, tokens }) => forest.add(segment, tokens))
    const advantages = segments.map((_, i) => (i % 2 === 0 ? 1 : -1))
    const terms: LossTerm[] = [{ kind: 'policy', segments, advantages }]
    const { keptTokens } = await engine.accumulate(forest, terms, { temperature: 0.8 })
    forwardPasses = keptTokens > 0 ? 1 : 2
    await engine.step({ learningRate: 1e-6, maxGradNorm: 1 })
  })
  const tokens = contexts * (length + group * fresh)
  return {
    ...{ name: 'GRPO step', ...time },
    work: `${contexts} contexts of ${length} tokens, ${group} rollouts of ${fresh} for each, one update`,
    tokensPerSecond: tokens / time.seconds,
    flops: ((forwardPasses + 2) * tokens * forwardFlops(engine, length)) / time.seconds,
  }
}

/** Repeats for so many seconds, twice at least, after one call that is not counted. */
async function fastest(
  seconds: number,
  call: () => Promise<unknown>,
): Promise<{ seconds: number; repetitions: number }> {
  await call()
  const end = performance.now() + 1000 * seconds
  let [best, repetitions] = [Number.POSITIVE_INFINITY, 0]
  do {
    const begin = performance.now()
    await call()
    best = Math.min(best, performance.now() - begin)
    ++repetitions
  } while (repetitions < 2 || performance.now() < end)
  return { seconds: best / 1000, repetitions }
}

/** Tokens that differ from stream to stream; which ones they are does not matter for speed. */
function someTokens({ config }: Engine, count: number, stream: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (7919 * (i + 1) + 104_729 * (stream + 1)) % config.vocabSize)
}
