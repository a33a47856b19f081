import { describe, expect, test } from 'vitest'
import { type RptOptions, rpt } from '../../lib/algorithm/rpt.js'
import { drawTargets } from '../../lib/algorithm/targets.js'
import type { PolicyTerm } from '../../lib/engine/loss-terms.js'
import { scriptedTools, tokenizer } from './scripted-tools.js'

const small = (options: RptOptions = {}) =>
  rpt({
    prompt: { template: 'Go on: {context}' },
    contextsPerStep: 3,
    rolloutsPerContext: 2,
    dynamicSampling: false,
    ...options,
    targets: { maxPerDocument: 10, ...options.targets },
    sampling: { maxTokens: 20, ...options.sampling },
  })

/** Digits are hard to predict. */
const entropyOf = (token: string) => (/\d/.test(token) ? 2 : 0)

describe('a step of rpt', () => {
  test('asks at hard positions and trains on the groups that have a signal, normalised over all', async () => {
    const method = small()
    const tools = scriptedTools({
      method,
      entropyOf,
      texts: ['a1b2c3', 'zz'],
      // 1: right and wrong. 2: both wrong. 3: wrong and right.
      answers: [
        'A</think>\\boxed{1b}',
        '</think>\\boxed{7}',
        '</think>\\boxed{9}',
        'no',
        '</think>\\boxed{ 3}',
        '</think>\\boxed{3}',
      ],
    })
    const plan = (await method.collect(tools))!
    expect(tools.asked).toEqual([{ questions: ['Go on: a<think>', 'Go on: a1b<think>', 'Go on: a1b2c<think>'], n: 2 }])
    expect(plan.metrics).toMatchObject({
      reward: 2 / 6,
      frac_reward_zero_std: 1 / 3,
      'rpt/groups': 3,
      'rpt/groups_trained': 2,
      'rpt/documents': 1,
      'rpt/accuracy/hard': 2 / 6,
      'completions/without_box': 1 / 6,
      'completions/max_length': 12,
      'completions/min_length': 2,
    })
    expect(plan.metrics.reward_std).toBeCloseTo((2 * Math.SQRT1_2) / 3, 12)

    const [{ forest, terms, temperature }] = plan.updates as [(typeof plan.updates)[0]]
    expect(temperature).toBe(0.8)
    const term = terms.policy as PolicyTerm
    const lengths = [12, 10, 10, 2, 11, 10]
    expect(term.normaliser).toBe(lengths.reduce((a, b) => a + b))
    const advantage = Math.SQRT1_2 / (1 + Math.SQRT2 * 1e-6)
    Array.from(term.advantages!).forEach((value, i) => {
      expect(value).toBeCloseTo([advantage, -advantage, -advantage, advantage][i]!, 6)
    })
    // Flattened, the trained forest is the flat prompts and their answers, token for token.
    expect(Array.from(term.segments, (segment) => tokenizer.decode(forest.flatten(segment)))).toEqual([
      'Go on: a<think>A</think>\\boxed{1b}',
      'Go on: a<think></think>\\boxed{7}',
      'Go on: a1b2c<think></think>\\boxed{ 3}',
      'Go on: a1b2c<think></think>\\boxed{3}',
    ])
    // "Go on: " once, "a1b2c" once, "<think>" twice.
    expect(forest.length).toBe(7 + 5 + 2 + 12 + 10 + 11 + 10)
  })

  test('cuts a batch into updates with normalisers of their own', async () => {
    const method = small({ updatesPerBatch: 3, epochsPerBatch: 2, aggregation: 'constant' })
    const answers = ['</think>\\boxed{1}', '</think>\\boxed{2}', '</think>\\boxed{3}', '</think>\\boxed{4}']
    const plan = (await method.collect(scriptedTools({ method, entropyOf, texts: ['a1b2c3'], answers })))!
    // The second question gets 3 and 4: both wrong, nothing to learn.
    expect(plan.updates.map(({ terms }) => (terms.policy as PolicyTerm).segments.length)).toEqual([2, 2])
    for (const { terms } of plan.updates) expect((terms.policy as PolicyTerm).normaliser).toBe(2 * 20)
  })

  test('shapes the reward of long answers before advantages are made', async () => {
    const answers = ['</think>\\boxed{x}', 'a long thought</think>\\boxed{x}']
    const plain = small()
    const shaped = small({ overlong: { buffer: 10 }, sampling: { maxTokens: 30 } })
    const of = async (method: ReturnType<typeof small>) =>
      (await method.collect(scriptedTools({ method, entropyOf, texts: ['a1b2c3'], answers })))!
    expect((await of(plain)).updates).toEqual([])
    const [update] = (await of(shaped)).updates
    // 24 of 30 tokens with a buffer of 10: 0.4 less.
    expect(
      Array.from((update!.terms.policy as PolicyTerm).advantages!)
        .slice(0, 2)
        .map(Math.sign),
    ).toEqual([1, -1])
    expect((await of(shaped)).metrics.reward).toBe(0)
  })

  test('masks the positions asked about in the auxiliary loss', async () => {
    const method = small({ auxiliary: { coefficient: 0.1 } })
    const plan = (await method.collect(scriptedTools({ method, entropyOf, texts: ['a1b2'], answers: ['no'] })))!
    const [{ forest, terms }] = plan.updates as [(typeof plan.updates)[0]]
    expect(tokenizer.decode(forest.tokens)).toBe('a1b2')
    expect(terms).toEqual({
      auxiliary: { kind: 'cross-entropy', coefficient: 0.1, weights: Float32Array.of(0, 0, 1, 0) },
    })
  })

  test('has no update for nothing: more updates than groups, or texts whose every token is masked', async () => {
    const answers = ['</think>\\boxed{1}', '</think>\\boxed{2}']
    const many = small({ updatesPerBatch: 5, auxiliary: { coefficient: 1 } })
    const plan = (await many.collect(scriptedTools({ method: many, entropyOf, texts: ['a1b2'], answers })))!
    expect(plan.updates.map(({ terms }) => Object.keys(terms))).toEqual([
      ['policy', 'auxiliary'],
      ['policy', 'auxiliary'],
    ])
    const masked = small({ auxiliary: { coefficient: 1 } })
    const nothing = scriptedTools({ method: masked, entropyOf, texts: ['a1'], answers: ['no'] })
    expect((await masked.collect(nothing))!.updates).toEqual([])
  })

  test('asks about long documents in parts that fit the prompt', async () => {
    const method = small({ maxPromptTokens: 7 + 4 + 1, contextsPerStep: 100, targets: { by: 'random', minContext: 0 } })
    const tools = scriptedTools({ method, texts: ['0123456789ab'] })
    await method.collect(tools)
    const contexts = tools.asked[0]!.questions.map((question) => question.slice(7, -7))
    expect(contexts).toEqual(['', '0', '01', '012', '0123', '', '5', '56', '567', '5678', '', 'a'])
  })

  test('settings that cannot work are refused', async () => {
    expect(() => small({ contextsPerStep: 0 })).toThrow(/contextsPerStep is 0/)
    expect(() => small({ sampling: { temperature: 0 } })).toThrow(/temperature/)
    expect(() => small({ maxPromptTokens: 8 }).documents!(tokenizer)).toThrow(/the template alone has 8 tokens/)
    const method = small({ sampling: { maxTokens: 100_000 } })
    await expect(method.collect(scriptedTools({ method, texts: ['a1'] }))).rejects.toThrow(/the model ends at 100000/)
  })
})

describe('targets', () => {
  test('the choice among positions depends on seed and document, not on what was drawn before', async () => {
    const texts = Array.from({ length: 6 }, (_, i) => `${i}`.repeat(30))
    const draw = async (count: number, from: number) => {
      const targets = await drawTargets(scriptedTools({ texts: texts.slice(from) }), count, { maxPerDocument: 3 })
      return targets.map(({ document, position }) => `${document.id}:${position}`)
    }
    const all = await draw(18, 0)
    expect(all).toHaveLength(18)
    expect(new Set(all).size).toBe(18)
    expect(await draw(9, 3)).toEqual(all.slice(9))
    expect(await draw(7, 0)).toEqual(all.slice(0, 7))
  })

  test('an index gives the entropies, also of later parts of a long document', async () => {
    const index = {
      get: async () => Float32Array.from({ length: 12 }, (_, t) => (t % 4 === 3 ? 2 : 0)),
      header: {},
    } as unknown as NonNullable<Parameters<typeof drawTargets>[2]['difficulty']>
    const tools = scriptedTools({ texts: ['0123456789ab'], feed: { maxTokens: 5 } })
    const targets = await drawTargets(tools, 10, { maxPerDocument: 9, difficulty: index })
    expect(
      targets.map(({ document, position }) => tokenizer.decode(document.ids.subarray(position, position + 1))),
    ).toEqual(['3', '7', 'b'])
    const missing = { ...(index as object), get: async () => undefined } as unknown as typeof index
    await expect(drawTargets(scriptedTools({ texts: ['ab'] }), 1, { difficulty: missing })).rejects.toMatchObject({
      code: 'DATA_CHANGED',
    })
  })

  test('a corpus in which nothing is hard enough ends with an error, not in an endless search', async () => {
    const tools = scriptedTools({ texts: ['ab'], entropyOf: () => 0, feed: { epochs: Number.POSITIVE_INFINITY } })
    await expect(drawTargets(tools, 1, { maxPerDocument: 1 })).rejects.toMatchObject({
      code: 'INVALID_DATA',
      message: expect.stringContaining('minEntropy (0.5)'),
    })
  })
})
