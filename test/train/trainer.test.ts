import { afterEach, describe, expect, test } from 'vitest'
import type { Method } from '../../lib/algorithm/method.js'
import { ntp } from '../../lib/algorithm/ntp.js'
import { sft } from '../../lib/algorithm/sft.js'
import { textsCorpus } from '../../lib/algorithm/text-corpus.js'
import type { Engine } from '../../lib/engine/engine.js'
import type { AccumulateResult } from '../../lib/engine/results.js'
import { informationGainReward } from '../../lib/reward/log-prob.js'
import { rewardFromFunction } from '../../lib/reward/reward.js'
import { Trainer } from '../../lib/train/trainer.js'
import type { StepMetrics, TrainEvent, TrainerOptions } from '../../lib/train/types.js'
import { evenFirst, tinyEngine, tinyOptions, tinyRpt, weightsOf, withoutTimes } from './tiny-run.js'

const engines: Engine[] = []
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.dispose()
})

async function run(options: Partial<TrainerOptions> = {}) {
  const complete = await tinyOptions(options)
  engines.push(complete.engine)
  const trainer = new Trainer(complete)
  const steps: StepMetrics[] = []
  for await (const step of trainer) steps.push(step)
  return { steps, trainer, engine: complete.engine, weights: await weightsOf(complete.engine) }
}

const always = (reward: number) => rewardFromFunction(() => reward, `always ${reward}`)

describe('a run', () => {
  test('twice with one seed gives the same numbers and the same weights, and with another seed not', async () => {
    const first = await run()
    const second = await run()
    expect(second.steps.map(withoutTimes)).toEqual(first.steps.map(withoutTimes))
    expect(second.weights).toEqual(first.weights)
    const other = await run({ seed: 8 })
    expect(other.weights).not.toEqual(first.weights)
  })

  test('whose updates use what sampling has kept has the numbers and weights of one that computes it again', async () => {
    const engine = await tinyEngine()
    const results: AccumulateResult[] = []
    const accumulate = engine.accumulate.bind(engine)
    engine.accumulate = async (...call) => {
      const result = await accumulate(...call)
      results.push(result)
      return result
    }
    const kept = await run({ engine })
    expect(results.some(({ tokens }) => tokens > 0)).toBe(true)
    for (const { tokens, keptTokens } of results) expect(keptTokens).toBe(tokens)
    const computed = await run({ method: tinyRpt({ sampling: { keepActivations: false } }) })
    expect(kept.steps.map(withoutTimes)).toEqual(computed.steps.map(withoutTimes))
    expect(kept.weights).toEqual(computed.weights)
  })

  test('reports finite numbers under the names of TRL', async () => {
    const { steps } = await run({ steps: 2 })
    for (const step of steps) {
      expect(Object.values(step).every(Number.isFinite)).toBe(true)
      expect(step).toMatchObject({
        learning_rate: 3e-3,
        updates: 1,
        'rpt/groups': 6,
        'rpt/tries': 1,
        'completions/max_length': 5,
        // Exactly on-policy: sampling and training give one log-prob, to the bit.
        'importance_ratio/mean': 1,
        'importance_ratio/max': 1,
        approx_kl: 0,
        'clip_ratio/region_mean': 0,
      })
      for (const name of ['reward', 'reward_std', 'frac_reward_zero_std', 'entropy', 'grad_norm', 'step_time']) {
        expect(step).toHaveProperty([name])
      }
    }
    const tokens = steps.map(
      (s) => s['tokens/trained']! + s['tokens/generated']! + s['tokens/prefilled']! + s['tokens/scored']!,
    )
    expect(steps.map((s) => s.num_tokens)).toEqual([tokens[0], tokens[0]! + tokens[1]!])
    expect(steps[1]!.total_flops).toBe(steps[0]!.flops! + steps[1]!.flops!)
  })

  test('learns what is rewarded', async () => {
    const { steps } = await run({
      steps: 25,
      method: tinyRpt({ contextsPerStep: 16 }),
      optimizer: { learningRate: 1e-2 },
    })
    const mean = (from: number, to: number) =>
      steps.slice(from, to).reduce((sum, s) => sum + s.reward!, 0) / (to - from)
    expect(mean(0, 3)).toBeLessThan(0.7)
    expect(mean(20, 25)).toBeGreaterThan(0.9)
  })

  test('ends with the text where epochs are limited, and says so', async () => {
    const { steps, trainer } = await run({ steps: 100, epochs: 1, method: ntp({ documentsPerStep: 15 }) })
    expect(steps.map((step) => step.documents)).toEqual([15, 15, 10])
    expect(trainer.finished).toBe(true)
  })

  test('an abort finishes the step under way and ends without an error', async () => {
    const controller = new AbortController()
    const { steps } = await run({
      steps: 100,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.kind === 'samples' && event.step === 2) controller.abort()
      },
    })
    expect(steps.map((step) => step.step)).toEqual([1, 2])
  })
})

describe('groups without a signal', () => {
  test('are skipped: nothing is trained and no weight moves', async () => {
    const { steps, engine, weights } = await run({ steps: 2, reward: always(1) })
    expect(steps.map((s) => s.updates)).toEqual([0, 0])
    expect(steps[0]).toMatchObject({ reward: 1, frac_reward_zero_std: 1, 'tokens/trained': 0, grad_norm: 0 })
    const fresh = await tinyOptions()
    engines.push(fresh.engine)
    expect(weights).toEqual(await weightsOf(fresh.engine))
    expect(engine.disposed).toBe(false)
  })

  test('give the same update as when they are trained with advantages of 0', async () => {
    // Rewards differ in the groups of even number only; an entropy bonus of nearly nothing keeps every group.
    const half = rewardFromFunction(({ group, response }) => (group % 2 === 0 ? response[0]! % 2 : 0), 'half')
    const skipped = await run({ steps: 1, reward: half })
    const kept = await run({ steps: 1, reward: half, method: tinyRpt({ entropyCoefficient: 1e-30 }) })
    expect(skipped.steps[0]!['rpt/groups_trained']!).toBeLessThan(kept.steps[0]!['rpt/groups_trained']!)
    expect(skipped.steps[0]!.grad_norm).toBeGreaterThan(0)
    // Sums over other micro-batches round otherwise; what they sum is the same.
    expect(Math.abs(skipped.steps[0]!.grad_norm - kept.steps[0]!.grad_norm)).toBeLessThan(
      1e-5 * kept.steps[0]!.grad_norm,
    )
    expect(skipped.steps[0]!.loss).toBeCloseTo(kept.steps[0]!.loss, 6)
  })

  test('are replaced from the stated step on, at most the stated number of tries', async () => {
    const method = tinyRpt({ dynamicSampling: { fromStep: 1, maxTries: 3 } })
    const { steps } = await run({ steps: 2, reward: always(0), method })
    expect(steps.map((s) => [s['rpt/tries'], s['rpt/groups'], s.updates])).toEqual([
      [1, 6, 0],
      [3, 18, 0],
    ])
    const mixed = await run({
      steps: 2,
      reward: evenFirst,
      method: tinyRpt({ dynamicSampling: { fromStep: 0, maxTries: 9 } }),
    })
    for (const step of mixed.steps) expect(step['rpt/groups_trained']).toBe(6)
  })
})

describe('variants', () => {
  test('several updates per batch go off-policy after the first', async () => {
    const { steps } = await run({ steps: 1, method: tinyRpt({ updatesPerBatch: 2, epochsPerBatch: 2 }) })
    expect(steps[0]!.updates).toBe(4)
    expect(steps[0]!['importance_ratio/max']).toBeGreaterThan(1)
    expect(steps[0]!.approx_kl).toBeGreaterThan(0)
  })

  test.each(['grpo', 'dr-grpo', 'rloo', 'opo', 'batch'] as const)('%s trains', async (advantage) => {
    const { steps } = await run({ steps: 1, method: tinyRpt({ advantage, aggregation: 'sequence-mean' }) })
    expect(steps[0]!.grad_norm).toBeGreaterThan(0)
  })

  test('the divergence from the first weights is 0 at the first step and grows', async () => {
    const method = tinyRpt({ kl: { coefficient: 0.1 }, loss: 'cispo', clip: [1, 5] })
    const { steps } = await run({ steps: 3, method, optimizer: { learningRate: 1e-2 } })
    expect(steps[0]!.kl).toBe(0)
    expect(steps[2]!.kl).toBeGreaterThan(0)
    expect(steps[0]!['tokens/scored']).toBeGreaterThan(0)
  })

  test.each(['average', 'reference', 'current'] as const)(
    'a reward that compares with %s weights finds them, and no others are kept',
    async (baseline) => {
      const { steps, engine } = await run({
        steps: 3,
        reward: informationGainReward({ baseline }),
        optimizer: { learningRate: 1e-2 },
      })
      expect(steps.map((step) => Number.isFinite(step.reward))).toEqual([true, true, true])
      const { name } = engine.parameters()[0]!
      const kinds = ['average', 'reference'] as const
      const kept = await Promise.all(kinds.map((kind) => engine.read(name, kind).then(Boolean, () => false)))
      expect(kept).toEqual(kinds.map((kind) => kind === baseline))
    },
  )

  test('an auxiliary loss on the documents teaches the text', async () => {
    const method = tinyRpt({ auxiliary: { coefficient: 1 } })
    const { steps } = await run({ steps: 15, method, reward: always(0), optimizer: { learningRate: 1e-2 } })
    const losses = steps.map((step) => step.loss)
    expect(losses[0]).toBeGreaterThan(5)
    expect(losses.at(-1)!).toBeLessThan(0.8 * losses[0]!)
    const both = await run({ steps: 1, method })
    expect(both.steps[0]).toHaveProperty(['loss/policy'])
    expect(both.steps[0]!['loss/auxiliary']).toBeGreaterThan(5)
  })

  test('next-token prediction learns the text', async () => {
    const { steps } = await run({ steps: 15, method: ntp({ tokensPerStep: 300 }), optimizer: { learningRate: 1e-2 } })
    expect(steps[0]!.loss).toBeGreaterThan(5)
    expect(steps.at(-1)!.loss).toBeLessThan(3.5)
    expect(steps[0]!['tokens/generated']).toBe(0)
    expect(steps[0]!.flops).toBe(
      6 * steps[0]!['tokens/trained']! * (steps[0]!.flops! / 6 / steps[0]!['tokens/trained']!),
    )
  })

  test('traces mixed with text learn both, each reported', async () => {
    const traces = textsCorpus(['1+1=<think>one more</think>\\boxed{2}', '2+2=<think>two more</think>\\boxed{4}'])
    const method = sft({ traces, textShare: 0.5, sequencesPerStep: 8, prompt: { template: '{context}' } })
    const { steps } = await run({ steps: 20, method, optimizer: { learningRate: 1e-2 } })
    for (const step of steps) expect(step.documents! + step.traces!).toBe(8)
    expect(steps[0]!['loss/traces']).toBeGreaterThan(5)
    expect(steps.at(-1)!['loss/traces']).toBeLessThan(2)
    expect(steps.at(-1)!['loss/text']).toBeLessThan(4)
  })

  test('a method of one own is an object', async () => {
    const seen: number[] = []
    const method: Method = {
      name: 'watch',
      settings: {},
      async collect({ step, documents }) {
        seen.push(step)
        return (await documents.next()) && { updates: [], metrics: { watched: step } }
      },
    }
    const { steps } = await run({ steps: 3, method })
    expect(seen).toEqual([0, 1, 2])
    expect(steps.map((s) => s.watched)).toEqual([0, 1, 2])
  })
})

describe('a NaN', () => {
  test('of weights that have grown too large stops the run before an update and names step and tensor', async () => {
    const options = await tinyOptions({ method: ntp(), steps: 5 })
    engines.push(options.engine)
    const { engine } = options
    const trainer = new Trainer(options)
    await trainer.next()
    const { name, shape } = engine.parameters().find((parameter) => parameter.name.includes('lm_head'))!
    await engine.write(name, new Float32Array(shape[0]! * shape[1]!).fill(3e38))
    const before = await weightsOf(engine)
    await expect(trainer.next()).rejects.toMatchObject({
      code: 'NON_FINITE',
      message: expect.stringMatching(new RegExp(`^step 2: .*the largest weight .* is in ${name}`)),
    })
    expect(await weightsOf(engine)).toEqual(before)
  })

  test('in the advantages of a method stops it too', async () => {
    const method: Method = {
      ...tinyRpt(),
      async collect(tools) {
        const plan = (await tinyRpt().collect(tools))!
        const term = plan.updates[0]!.terms.policy!
        if (term.kind === 'policy') term.advantages = new Float32Array(term.advantages!.length).fill(Number.NaN)
        return plan
      },
    }
    const options = await tinyOptions({ method })
    engines.push(options.engine)
    const before = await weightsOf(options.engine)
    await expect(new Trainer(options).next()).rejects.toMatchObject({ message: expect.stringContaining('advantages') })
    expect(await weightsOf(options.engine)).toEqual(before)
  })
})

test('events carry samples and progress', async () => {
  const events: TrainEvent[] = []
  await run({ steps: 1, onEvent: (event) => events.push(event) })
  const samples = events.flatMap((event) => (event.kind === 'samples' ? event.samples : []))
  expect(samples).toHaveLength(6)
  for (const sample of samples) {
    expect(sample.prompt.startsWith(sample.context)).toBe(true)
    expect(sample.prompt.endsWith('?')).toBe(true)
    expect(sample.entropy).toBeGreaterThan(0.5)
    expect(sample.truth.length).toBeGreaterThan(0)
    expect([0, 1]).toContain(sample.reward)
  }
  expect(events.some((event) => event.kind === 'progress' && event.part === 'rollouts')).toBe(true)
})
