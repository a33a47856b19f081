import { describe, expect, it } from 'vitest'
import {
  createReward,
  evaluateReward,
  makeRewardContext,
  type RewardContext,
  type RewardTools,
  rewardFromFunction,
  type ScoreRequest,
} from '../../lib/reward/index.js'
import { Document } from '../../lib/text/document.js'
import { Prompt } from '../../lib/text/prompt.js'
import { byteLevelTokenizer } from '../text/small-tokenizers.js'

const tokenizer = byteLevelTokenizer([
  ['\u0120', 'c'],
  ['a', 't'],
  ['\u0120c', 'at'],
])
const document = Document.tokenize(tokenizer, 'a cat sat')
const prompt = Prompt.compile(tokenizer, { template: 'Q {context}' })
const position = 1

function answer(text: string, options: { stop?: 'token' | 'length'; group?: number } = {}): RewardContext {
  return makeRewardContext({
    tokenizer,
    document,
    position,
    prompt: prompt.flat(document, position),
    response: tokenizer.encode(text, { special: true, continues: true }),
    stop: options.stop ?? 'token',
    group: options.group ?? 0,
  })
}

/** A model that gives every token log(1 / (1 + its id)) and remembers what it was asked. */
function fakeTools(): RewardTools & { requests: ScoreRequest[] } {
  const requests: ScoreRequest[] = []
  return {
    tokenizer,
    requests,
    async score(asked) {
      requests.push(...asked)
      return asked.map(({ tokens, weights }) =>
        Float64Array.from(tokens, (id) => (weights === 'average' ? -3 : -Math.log(1 + id))),
      )
    },
  }
}

const evaluate = async (name: string, contexts: RewardContext[], options = {}, tools = fakeTools()) => [
  ...(await evaluateReward(createReward(name, options), contexts, tools)),
]

describe('the answer to be judged', () => {
  it('knows the truth, the prediction and whether it was cut off', () => {
    const context = answer('hm</think>\\boxed{ cat}</s>')
    expect(Buffer.from(context.truth).toString()).toBe(' cat sat')
    expect(Buffer.from(context.prediction!).toString()).toBe(' cat')
    expect(context.truncated).toBe(false)
  })
  it('knows how many tokens were thought', () => {
    expect(answer('hmm</think>\\boxed{ cat}</s>').thoughtLength).toBe(3)
    expect(answer('</think>\\boxed{ cat}').thoughtLength).toBe(0)
    expect(answer('hmm</s>', { stop: 'length' }).thoughtLength).toBe(4)
    expect(answer('', { stop: 'length' }).thoughtLength).toBe(0)
  })
  it('has no prediction when it was cut off, whatever it says', () => {
    expect(answer('</think>\\boxed{ cat}', { stop: 'length' })).toMatchObject({ prediction: null, truncated: true })
  })
  it('may spell the marks with one token or with many', () => {
    const spelled = [...tokenizer.encode('</')].concat([...tokenizer.encode('think>\\boxed{ cat}')])
    const context = makeRewardContext({ ...answer(''), tokenizer, response: Int32Array.from(spelled), stop: 'token' })
    expect(spelled).not.toContain(tokenizer.idOf('</think>'))
    expect(context.thoughtLength).toBe(0)
    expect(Buffer.from(context.prediction!).toString()).toBe(' cat')
  })
})

describe('rewards by name', () => {
  it('prefix-match gives 1 for token prefixes and 0 for the rest', async () => {
    const texts = [' cat', ' cat sat', ' ca', ' cats', '']
    const contexts = texts.map((text) => answer(`</think>\\boxed{${text}}`))
    expect(await evaluate('prefix-match', [...contexts, answer('no box')])).toEqual([1, 1, 0, 0, 0, 0])
  })

  it('first-token looks at the first token of the prediction alone', async () => {
    const texts = [' cat', ' cat dog', ' ca', 'cat', '']
    const contexts = texts.map((text) => answer(`</think>\\boxed{${text}}`))
    expect(await evaluate('first-token', contexts)).toEqual([1, 1, 0, 0, 0])
  })

  it('dense gives a wrong token the probability the model gives it after the plain text', async () => {
    const tools = fakeTools()
    const contexts = [answer('</think>\\boxed{ cat}'), answer('</think>\\boxed{dog}'), answer('')]
    const d = tokenizer.idOf('d')!
    const values = await evaluate('dense', contexts, {}, tools)
    expect(values[0]).toBe(1)
    expect(values[1]).toBeCloseTo(1 / (1 + d), 12)
    expect(values[2]).toBe(0)
    expect(tools.requests.map((request) => ({ ...request }))).toEqual([
      { context: document.context(1), tokens: Int32Array.of(d) },
    ])
  })

  it('conditional-dense gives nothing, or a penalty, to groups without a right answer', async () => {
    const right = '</think>\\boxed{ cat}'
    const wrong = '</think>\\boxed{!}'
    const contexts = [answer(right), answer(wrong), answer(wrong, { group: 1 }), answer('', { group: 1 })]
    const probability = 1 / (1 + tokenizer.idOf('!')!)
    const values = await evaluate('conditional-dense', contexts)
    expect(values[1]).toBeCloseTo(probability, 12)
    expect([values[0], ...values.slice(2)]).toEqual([1, 0, 0])
    expect((await evaluate('conditional-dense', contexts, { penalty: 0.5 })).slice(2)).toEqual([-0.5, -0.5])
  })

  it('log-prob asks for the true token after the thought, without the answer that was given', async () => {
    const tools = fakeTools()
    const cat = tokenizer.idOf('\u0120cat')!
    const values = await evaluate(
      'log-prob',
      [answer('hm</think>\\boxed{no}'), answer('hm', { stop: 'length' })],
      {},
      tools,
    )
    expect(values[0]).toBeCloseTo(-Math.log(1 + cat), 12)
    for (const { context, tokens } of tools.requests) {
      expect(tokenizer.decode(context)).toBe('Q a<think>hm</think>\\boxed{')
      expect([...tokens]).toEqual([cat])
    }
  })

  it('information-gain compares it with the average weights on the plain text', async () => {
    const tools = fakeTools()
    const [value] = await evaluate('information-gain', [answer('hm</think>\\boxed{no}')], {}, tools)
    expect(value).toBeCloseTo(-Math.log(1 + tokenizer.idOf('\u0120cat')!) + 3, 12)
    expect(tokenizer.decode(tools.requests[1]!.context)).toBe('a')
    expect(tools.requests[1]!.weights).toBe('average')
  })

  it('that are not known are refused with those that are', () => {
    expect(() => createReward('prefixmatch')).toThrow(/prefix-match, first-token/)
    expect(() => createReward('toString')).toThrow(/not known/)
  })
})

describe("a user's reward", () => {
  const contexts = [answer('</think>\\boxed{ cat}'), answer('</think>\\boxed{x}')]
  const run = (reward: Parameters<typeof evaluateReward>[0]) => evaluateReward(reward, contexts, fakeTools())

  it('may be synchronous, asynchronous or a batch, and may ask the model', async () => {
    expect([...(await run(rewardFromFunction(({ prediction }) => prediction!.length)))]).toEqual([4, 1])
    const asking = rewardFromFunction(async ({ document }, { score }) => {
      const [logprobs] = await score([{ context: document.context(1), tokens: document.ids.subarray(1, 2) }])
      return Math.exp(logprobs![0]!)
    })
    const expected = 1 / (1 + document.ids[1]!)
    for (const value of await run(asking)) expect(value).toBeCloseTo(expected, 12)
    expect([...(await run({ name: 'batch', evaluate: (all) => all.map((_, i) => i) }))]).toEqual([0, 1])
  })

  it('is refused by name when it gives too few numbers or none at all', async () => {
    await expect(run({ name: 'short', evaluate: () => [1] })).rejects.toThrow(/'short' gave 1 values for 2/)
    await expect(run({ name: 'nan', evaluate: () => [1, Number.NaN] })).rejects.toThrow(/'nan' gave NaN for position 1/)
  })
})
