import { afterEach, describe, expect, test } from 'vitest'
import { scorePlain } from '../../lib/algorithm/difficulty.js'
import { ntp } from '../../lib/algorithm/ntp.js'
import { rewardTools } from '../../lib/algorithm/score-requests.js'
import { sft } from '../../lib/algorithm/sft.js'
import { textsCorpus } from '../../lib/algorithm/text-corpus.js'
import type { Engine } from '../../lib/engine/engine.js'
import type { SampleResult, ScoreResult } from '../../lib/engine/results.js'
import { TokenForest } from '../../lib/engine/token-forest.js'
import { evaluate } from '../../lib/evaluate/evaluate.js'
import { evaluationMetrics } from '../../lib/evaluate/evaluation-metrics.js'
import { chooseEvaluationTargets } from '../../lib/evaluate/targets.js'
import type { EvaluationTarget } from '../../lib/evaluate/types.js'
import { Document } from '../../lib/text/document.js'
import { Trainer } from '../../lib/train/trainer.js'
import { tinyEngine, tinyOptions, tokenizer } from '../train/tiny-run.js'

const engines: Engine[] = []
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.dispose()
})
async function newEngine(): Promise<Engine> {
  const engine = await tinyEngine()
  engines.push(engine)
  return engine
}

const document = Document.tokenize(tokenizer, 'abcdefghij')
const target = (position: number, entropy: number): EvaluationTarget => ({ document, position, entropy })

/** An engine that predicts "c" everywhere and answers as told, in order. */
function scripted(answers: string[]) {
  const c = tokenizer.encode('c')[0]!
  const asked: { bannedTokens: unknown; temperature: unknown }[] = []
  return {
    asked,
    engine: {
      config: { maxPositionEmbeddings: 512 } as Engine['config'],
      setTokenBytes: async () => undefined,
      parameters: () => [{ name: 'w', shape: [10], dtype: 'float32' as const }],
      score: async (forest: TokenForest): Promise<ScoreResult> => ({
        logprobs: new Float32Array(forest.length),
        entropy: new Float32Array(forest.length),
        topEntropy: new Float32Array(forest.length),
        argmax: new Int32Array(forest.length).fill(c),
      }),
      sample: async (_: TokenForest, options: Parameters<Engine['sample']>[1]): Promise<SampleResult> => {
        asked.push({ bannedTokens: options.bannedTokens, temperature: options.temperature })
        const rollouts = Array.from({ length: options.from.length * (options.n ?? 1) }, (_, i) => {
          const tokens = tokenizer.encode(answers.shift()!, { special: true })
          return {
            segment: options.from[Math.floor(i / (options.n ?? 1))]!,
            tokens,
            logprobs: new Float32Array(tokens.length),
            stop: 'token' as const,
          }
        })
        return { rollouts, statistics: { prefillTokens: 5, decodeTokens: 10, decodeSteps: 1, waves: 1, keptTokens: 0 } }
      },
    },
  }
}

describe('an evaluation', () => {
  test('counts splits, errors and lengths as worked out by hand', async () => {
    // Position 2 is "c" and easy, 4 is "e" and medium, 6 is "g" and hard; two answers each.
    const targets = [target(2, 0.6), target(4, 1.2), target(6, 2)]
    const { engine, asked } = scripted([
      'x</think>\\boxed{c}',
      'x</think>\\boxed{d}',
      'x</think>\\boxed{ef}',
      'x</think>\\boxed{efg}',
      'no box',
      'xyz</think>\\boxed{g}',
    ])
    const report = await evaluate(engine, tokenizer, targets, { samples: 2, prompt: { template: '{context}' } })
    const { easy, medium, hard } = report.splits

    expect([easy.positions, medium.positions, hard.positions]).toEqual([3, 2, 1])
    expect(easy.prediction).toBeCloseTo(1 / 3, 12)
    expect([medium.prediction, hard.prediction]).toEqual([0, 0])
    // Right shares per position: 1/2, 2/2, 1/2. Their standard deviation is 0.2887, divided by the root of 3.
    expect(easy.reasoning!.accuracy).toBeCloseTo(2 / 3, 12)
    expect(easy.reasoning!.standardError).toBeCloseTo(1 / 6, 12)
    expect(medium.reasoning!.accuracy).toBe(0.75)
    expect(medium.reasoning!.standardError).toBeCloseTo(0.25, 12)
    expect(hard.reasoning).toMatchObject({ accuracy: 0.5, standardError: 0, withoutBox: 0.5, truncated: 0 })
    expect(easy.reasoning!.withoutBox).toBeCloseTo(1 / 6, 12)
    // `</think>` is one token, all else is bytes: 11, 11, 12, 13, 6 and 13 tokens.
    expect(easy.reasoning!.length).toBe(11)
    // Thoughts of 1, 1, 1, 1, 6 (which does not end) and 3 tokens.
    expect(easy.reasoning!.thoughtLength).toBeCloseTo(13 / 6, 12)
    expect(asked).toEqual([{ bannedTokens: [], temperature: 0.8 }])
    // 10 tokens scored, 5 + 10 sampled, 10 parameters.
    expect(report).toMatchObject({ tokens: 25, flops: 500 })
    expect(report.samples[0]).toMatchObject({ context: 'ab', thought: 'x', prediction: 'c', right: true })
    expect(report.samples[0]!.truth).toBe('cdefghij')
  })

  test('asks a second time with tokens forbidden, where that is wanted', async () => {
    const { engine, asked } = scripted(['?</think>\\boxed{d}', 'x</think>\\boxed{c}'])
    const report = await evaluate(engine, tokenizer, [target(2, 2)], {
      forced: { bannedTokens: [63] },
      prompt: { template: '{context}' },
    })
    expect(asked.map(({ bannedTokens }) => bannedTokens)).toEqual([[], [63]])
    expect(report.splits.hard.reasoning!.accuracy).toBe(0)
    expect(report.splits.hard.forced!.accuracy).toBe(1)
    expect(evaluationMetrics(report)).toMatchObject({ 'eval/hard/reasoning': 0, 'eval/hard/forced': 1 })
  })

  test('leaves splits without positions out of the metrics', async () => {
    const { engine } = scripted([])
    const report = await evaluate(engine, tokenizer, [target(2, 0.7)], { predictionOnly: true })
    expect(Object.keys(evaluationMetrics(report))).toEqual([
      'eval/easy/positions',
      'eval/easy/prediction',
      'eval/easy/prediction_stderr',
    ])
    await expect(evaluate(engine, tokenizer, [])).rejects.toMatchObject({ code: 'INVALID_DATA' })
  })
})

describe('with a model', () => {
  const texts = ['one and two make three.', 'two and two make four.', 'naïve “text”']
  const documents = texts.map((text) => Document.tokenize(tokenizer, text))

  test('targets are the positions whose top-16 entropy is above the threshold', async () => {
    const engine = await newEngine()
    const scores = await scorePlain(engine, tokenizer, documents)
    const middle = [...scores[0]!.entropy.subarray(1)].sort((a, b) => a - b)[10]!
    const targets = await chooseEvaluationTargets(engine, tokenizer, documents, { minEntropy: middle, batchTokens: 30 })
    const expected = documents.flatMap(({ id }, d) =>
      [...scores[d]!.entropy].flatMap((entropy, t) => (entropy > middle ? [`${id}:${t}:${entropy}`] : [])),
    )
    expect(targets.map(({ document, position, entropy }) => `${document.id}:${position}:${entropy}`)).toEqual(expected)
    const index = { get: async (hash: string) => scores[documents.findIndex(({ id }) => id === hash)]?.entropy }
    expect(await chooseEvaluationTargets(index, tokenizer, documents, { minEntropy: middle })).toEqual(targets)
    const few = await chooseEvaluationTargets(engine, tokenizer, documents, { maxTargets: 4, maxPerDocument: 2 })
    expect(few).toHaveLength(4)
  })

  test('the answers are the same whatever else is asked, and greedy ones whatever the seed', async () => {
    const engine = await newEngine()
    const targets = await chooseEvaluationTargets(engine, tokenizer, documents, {})
    const options = { prompt: { template: '{context}' }, maxTokens: 6, keepSamples: 100 }
    const all = await evaluate(engine, tokenizer, targets, options)
    const some = await evaluate(engine, tokenizer, targets.slice(0, 3), options)
    expect(all.samples.slice(0, 3)).toEqual(some.samples)
    const greedy = (seed: number) => evaluate(engine, tokenizer, targets, { ...options, temperature: 0, seed })
    expect((await greedy(1)).samples).toEqual((await greedy(2)).samples)
  })

  test('what was learned shows: prediction by next-token training, reasoning by traces', async () => {
    const options = await tinyOptions({
      steps: 60,
      method: ntp({ documentsPerStep: 3 }),
      corpus: textsCorpus(texts),
      optimizer: { learningRate: 1e-2 },
    })
    engines.push(options.engine)
    const targets = await chooseEvaluationTargets(options.engine, tokenizer, documents)
    const before = await evaluate(options.engine, tokenizer, targets, { predictionOnly: true })
    for await (const _ of new Trainer(options));
    const after = await evaluate(options.engine, tokenizer, targets, { predictionOnly: true })
    expect(before.splits.hard.prediction).toBeLessThan(0.2)
    expect(after.splits.hard.prediction).toBeGreaterThan(0.8)

    const traces = textsCorpus(['ab<think>c</think>\\boxed{c}'])
    const letters = await tinyOptions({
      steps: 60,
      method: sft({ traces, sequencesPerStep: 4, prompt: { template: '{context}' } }),
      optimizer: { learningRate: 1e-2 },
      evaluation: {
        targets: [{ document, position: 2, entropy: 2 }],
        every: 60,
        prompt: { template: '{context}' },
        maxTokens: 20,
        temperature: 0,
      },
    })
    engines.push(letters.engine)
    let last = {}
    for await (const step of new Trainer(letters)) last = step
    expect(last).toMatchObject({ 'eval/hard/reasoning': 1, 'eval/hard/without_box': 0 })
  })
})

test('answers end at the texts that end them in training, and lack the tokens that lack there', async () => {
  const engine = await newEngine()
  const options = { prompt: { template: '{context}' }, samples: 8, maxTokens: 60, stopTokens: [] }
  const targets = [target(4, 2)]
  const free = await evaluate(engine, tokenizer, targets, options)
  expect(free.splits.hard.reasoning!.truncated).toBe(1)
  const letters = Array.from({ length: 26 }, (_, i) => String.fromCharCode(97 + i))
  const stopped = await evaluate(engine, tokenizer, targets, { ...options, stopTexts: letters })
  expect(stopped.splits.hard.reasoning!.length).toBeLessThan(30)
  expect(stopped.splits.hard.reasoning!.truncated).toBe(0)
  const ids = Array.from({ length: tokenizer.vocabSize }, (_, id) => id)
  const bannedTokens = ids.filter((id) => tokenizer.bytes.join([id]).some((byte) => byte >= 97 && byte <= 122))
  const banned = await evaluate(engine, tokenizer, targets, { ...options, stopTexts: letters, bannedTokens })
  expect(banned.splits.hard.reasoning!.truncated).toBe(1)
})

test('rewards score their requests as a flat forest does, under the weights they name', async () => {
  const engine = await newEngine()
  await engine.keepReference()
  await engine.accumulate(forestOf('xyz'), [{ kind: 'cross-entropy' }])
  await engine.step({ learningRate: 0.1 })
  const ids = (text: string) => tokenizer.encode(text)
  const requests = [
    { context: ids('one and '), tokens: ids('two') },
    { context: ids('one and two'), tokens: ids(' make') },
    { context: ids('one and '), tokens: ids('two'), weights: 'reference' as const },
  ]
  const answers = await rewardTools(engine, tokenizer).score(requests)
  for (const [i, { context, tokens, weights = 'current' }] of requests.entries()) {
    const flat = new TokenForest()
    flat.add(null, Int32Array.from([...context, ...tokens]))
    const { logprobs } = await engine.score(flat, { weights })
    expect(answers[i]).toEqual(logprobs.slice(context.length))
  }
  expect(answers[2]).not.toEqual(answers[0])
})

function forestOf(text: string): TokenForest {
  const forest = new TokenForest()
  forest.add(null, tokenizer.encode(text))
  return forest
}
