import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Engine, type SampleOptions, TokenForest } from '../../lib/index.js'
import { tinyConfig, tinyEngine, tokenIds } from '../support/tiny-model.js'

const V = tinyConfig.vocab_size
let engine: Engine
const forest = new TokenForest()
forest.add(null, tokenIds(40, 1))
forest.add(0, tokenIds(5, 2))
forest.add(0, tokenIds(9, 3))

beforeAll(async () => {
  engine = await tinyEngine()
})
afterAll(() => engine.dispose())

async function sample(options: Omit<SampleOptions, 'from'> & { from?: number[] }) {
  const { rollouts } = await engine.sample(forest, { from: [1], seed: 4, ...options })
  return rollouts
}

/** The V log-probs that follow a path of the forest and some tokens, computed here from the logits. */
async function logprobsAfter(segment: number, tokens: ArrayLike<number>, temperature = 1): Promise<number[]> {
  const path = new TokenForest()
  path.add(null, [...forest.flatten(segment), ...Array.from(tokens)])
  const { logits } = await engine.score(path, { logits: [path.length - 1] })
  const scaled = Array.from(logits!, (logit) => logit / temperature)
  const largest = Math.max(...scaled)
  const logSum = largest + Math.log(scaled.reduce((sum, logit) => sum + Math.exp(logit - largest), 0))
  return scaled.map((logit) => logit - logSum)
}

/** Token ids from the most probable on. */
function byProbability(logprobs: number[]): number[] {
  return logprobs.map((_, token) => token).sort((a, b) => logprobs[b]! - logprobs[a]!)
}

describe('sampling', () => {
  test('gives n rollouts per segment, in order', async () => {
    const rollouts = await sample({ from: [2, 1], n: 3, maxTokens: 4 })
    expect(rollouts.map(({ segment }) => segment)).toEqual([2, 2, 2, 1, 1, 1])
    for (const { tokens, logprobs, stop } of rollouts) {
      expect(tokens).toBeInstanceOf(Int32Array)
      expect(logprobs).toBeInstanceOf(Float32Array)
      expect([tokens.length, logprobs.length, stop]).toEqual([4, 4, 'length'])
    }
  })

  test('draws from the tempered softmax: frequencies of the first token are its probabilities', async () => {
    const n = 8000
    const temperature = 0.8
    const rollouts = await sample({ n, maxTokens: 1, temperature })
    const logprobs = await logprobsAfter(1, [], temperature)
    const counts = new Array<number>(V).fill(0)
    for (const { tokens } of rollouts) counts[tokens[0]!]! += 1
    // Pearson's chi-square over the tokens that are expected often enough, the others together as one. Its mean is the
    // number of cells and its variance twice that: six standard deviations are beyond any chance, and the seed is fixed.
    const expected = logprobs.map((logprob) => n * Math.exp(logprob))
    const frequent = expected.map((count) => count >= 10)
    const cells = [...expected.keys()]
      .filter((token) => frequent[token])
      .map((t) => [counts[t]!, expected[t]!] as const)
    const rest = [counts, expected].map((values) => values.reduce((sum, v, t) => (frequent[t] ? sum : sum + v), 0))
    cells.push([rest[0]!, rest[1]!])
    const chiSquare = cells.reduce((sum, [seen, wanted]) => sum + (seen - wanted) ** 2 / wanted, 0)
    expect(cells.length).toBeGreaterThan(20)
    expect(chiSquare).toBeLessThan(cells.length + 6 * Math.sqrt(2 * cells.length))
  })

  test('reports log-probs of the whole softmax, whatever was cut off', async () => {
    for (const truncation of [{ topK: 3 }, { topP: 0.3 }, { minP: 0.2 }, { bannedTokens: [7, 8, 9] }]) {
      const [rollout] = await sample({ ...truncation, maxTokens: 6, temperature: 1.5 })
      for (let i = 0; i < 6; ++i) {
        const logprobs = await logprobsAfter(1, rollout!.tokens.subarray(0, i), 1.5)
        expect(Math.abs(rollout!.logprobs[i]! - logprobs[rollout!.tokens[i]!]!)).toBeLessThan(1e-5)
      }
    }
  })

  test('at temperature 0 takes the most probable token, and so does topK = 1', async () => {
    const [greedy] = await sample({ temperature: 0, maxTokens: 12 })
    const [topOne] = await sample({ topK: 1, maxTokens: 12 })
    expect([...greedy!.tokens]).toEqual([...topOne!.tokens])
    expect(greedy!.logprobs).toEqual(topOne!.logprobs)
    for (let i = 0; i < 12; ++i) {
      const logprobs = await logprobsAfter(1, greedy!.tokens.subarray(0, i))
      expect(greedy!.tokens[i]).toBe(byProbability(logprobs)[0])
    }
  })

  test('topK draws from the k most probable tokens, and from all of them', async () => {
    const rollouts = await sample({ n: 400, maxTokens: 1, topK: 5, temperature: 2 })
    const best = byProbability(await logprobsAfter(1, [])).slice(0, 5)
    expect(new Set(rollouts.map(({ tokens }) => tokens[0]))).toEqual(new Set(best))
  })

  test('topP draws from the smallest set of most probable tokens that reaches the mass', async () => {
    const logprobs = await logprobsAfter(1, [])
    const order = byProbability(logprobs)
    let mass = 0
    let size = 0
    while (mass < 0.4) mass += Math.exp(logprobs[order[size++]!]!)
    const rollouts = await sample({ n: 2000, maxTokens: 1, topP: 0.4 })
    expect(new Set(rollouts.map(({ tokens }) => tokens[0]))).toEqual(new Set(order.slice(0, size)))
  })

  test('minP draws from tokens with at least that share of the best probability', async () => {
    const logprobs = await logprobsAfter(1, [])
    const best = Math.max(...logprobs)
    const allowed = [...logprobs.keys()].filter((token) => logprobs[token]! >= best + Math.log(0.3))
    const rollouts = await sample({ n: 2000, maxTokens: 1, minP: 0.3 })
    expect(new Set(rollouts.map(({ tokens }) => tokens[0]))).toEqual(new Set(allowed))
  })

  test('never draws a banned token', async () => {
    const free = await sample({ n: 50, maxTokens: 20 })
    const bannedTokens = [...new Set(free.flatMap(({ tokens }) => [...tokens]))].slice(0, V - 60)
    const drawn = new Set((await sample({ n: 50, maxTokens: 20, bannedTokens })).flatMap(({ tokens }) => [...tokens]))
    expect(bannedTokens.filter((token) => drawn.has(token))).toEqual([])
  })
})

describe('a rollout ends', () => {
  test('with the first stop token, which it keeps', async () => {
    const free = await sample({ n: 100, maxTokens: 30 })
    const stopTokens = [10, 20, 30, 40, 50]
    const stopped = await sample({ n: 100, maxTokens: 30, stop: { tokens: stopTokens } })
    for (const [i, { tokens, logprobs, stop }] of stopped.entries()) {
      const whole = free[i]!
      const at = whole.tokens.findIndex((token) => stopTokens.includes(token))
      expect(stop).toBe(at < 0 ? 'length' : 'token')
      expect([...tokens]).toEqual([...(at < 0 ? whole.tokens : whole.tokens.slice(0, at + 1))])
      expect(logprobs.length).toBe(tokens.length)
    }
    expect(new Set(stopped.map(({ stop }) => stop))).toEqual(new Set(['token', 'length']))
  })

  test('not before minTokens: stop tokens have no chance until then', async () => {
    const tokens = Array.from({ length: 150 }, (_, i) => i)
    const rollouts = await sample({ n: 50, maxTokens: 12, minTokens: 7, stop: { tokens } })
    for (const rollout of rollouts) {
      expect(rollout.tokens.length).toBeGreaterThan(7)
      expect([...rollout.tokens.subarray(0, 7)].filter((token) => tokens.includes(token))).toEqual([])
    }
  })

  test('with the token that completes a stop text, also across tokens and within one', async () => {
    // Token t is one to three of the letters a to d; a stop text begins and ends anywhere in a token.
    const texts = Array.from({ length: V }, (_, t) =>
      Array.from({ length: 1 + (t % 3) }, (_, i) => 'abcd'[(t >> (2 * i)) % 4]).join(''),
    )
    const bytes = new TextEncoder().encode(texts.join(''))
    const offsets = [0]
    for (const text of texts) offsets.push(offsets.at(-1)! + text.length)
    await engine.setTokenBytes({ bytes, offsets })
    const stops = ['dadda', new TextEncoder().encode('bcb')]
    const isStopped = (text: string) => text.includes('dadda') || text.includes('bcb')
    const textOf = (tokens: Int32Array) => Array.from(tokens, (token) => texts[token]).join('')

    const free = await sample({ n: 100, maxTokens: 25 })
    const stopped = await sample({ n: 100, maxTokens: 25, stop: { texts: stops } })
    for (const [i, { tokens, stop }] of stopped.entries()) {
      const whole = free[i]!.tokens
      let length = 1
      while (length < whole.length && !isStopped(textOf(whole.subarray(0, length)))) ++length
      expect([...tokens]).toEqual([...whole.subarray(0, length)])
      expect(stop).toBe(isStopped(textOf(tokens)) ? 'text' : 'length')
    }
    expect(new Set(stopped.map(({ stop }) => stop))).toEqual(new Set(['text', 'length']))
    const completing = stopped.filter(({ stop }) => stop === 'text').map(({ tokens }) => texts[tokens.at(-1)!]!)
    expect(completing.some((text) => text.length === 1)).toBe(true)
    expect(completing.some((text) => text.includes('bcb'))).toBe(true)
  })
})

describe('statistics of sampling', () => {
  test('count a shared context once', async () => {
    const { statistics } = await engine.sample(forest, { from: [1, 2], n: 4, maxTokens: 3, seed: 1 })
    expect(statistics.prefillTokens).toBe(forest.length)
    expect(statistics).toMatchObject({ decodeSteps: 2, waves: 1 })
  })
})
