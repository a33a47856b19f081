// A step of RPT through the public pipeline (corpus, positions, template, rollouts, reward, update) on random weights:
// seconds of its parts, against the same step with a forward pass in the update (nothing kept), without sharing and, where
// PYTHON is given, against TRL's GRPOTrainer.
//
//   PYTHON=.venv/bin/python npm run bench -- train [--documents 4] [--targets 4] [--length 256] [--group 8] [--new 64]
//       [--dtype bfloat16] [--rounds 5] [--trl-rounds 1]
//
// Our ways take turns; figures are medians over the rounds, so that a change of the machine's speed meets both.
// TRL is given prompts of the same lengths, as many rollouts of them and as many new tokens, in float32.

import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Method } from '../lib/algorithm/method.js'
import { rpt } from '../lib/algorithm/rpt.js'
import { Corpus } from '../lib/corpus/corpus.js'
import { Engine } from '../lib/engine/engine.js'
import { prefixMatch } from '../lib/reward/prefix-match.js'
import { rewardFromFunction } from '../lib/reward/reward.js'
import { Trainer } from '../lib/train/trainer.js'
import type { StepMetrics } from '../lib/train/types.js'
import { syllableText, syllableTokenizer } from './train/syllables.js'
import { withoutSharing } from './train/without-sharing.js'

const { values } = parseArgs({
  options: {
    documents: { type: 'string', default: '4' },
    targets: { type: 'string', default: '4' },
    length: { type: 'string', default: '256' },
    group: { type: 'string', default: '8' },
    new: { type: 'string', default: '64' },
    dtype: { type: 'string', default: 'bfloat16' },
    rounds: { type: 'string', default: '5' },
    'trl-rounds': { type: 'string', default: '1' },
  },
})
const [documents, targets, length, group, newTokens, rounds] = [
  ...[values.documents, values.targets, values.length, values.group, values.new, values.rounds],
].map(Number) as [number, number, number, number, number, number]
const dtype = values.dtype as 'float32' | 'bfloat16'

// The first shape of bench/peers: 12.6 million parameters.
const architecture = {
  model_type: 'qwen3',
  ...{ vocab_size: 8192, hidden_size: 384, num_hidden_layers: 6, num_attention_heads: 6, num_key_value_heads: 2 },
  ...{ head_dim: 64, intermediate_size: 1024, tie_word_embeddings: true, max_position_embeddings: 4096 },
}

/** Judges by prefix match as a run does; random weights are never right, so the answer's ids give groups a signal. */
const reward = rewardFromFunction(({ prediction, document, position, response }) => {
  const odd = response.reduce((sum, id) => sum + (id % 2), 0) / response.length
  return Number(prefixMatch(prediction, document, position)) + odd
}, 'prefix-match-and-odd')

const tokenizer = syllableTokenizer()
const promptLengths: number[] = []

async function newTrainer(
  corpus: Corpus,
  change: (method: Method) => Method,
  keepActivations = true,
): Promise<Trainer> {
  const method = rpt({
    prompt: { template: 'Read: {context}\nWhat follows?' },
    contextsPerStep: documents * targets,
    rolloutsPerContext: group,
    maxPromptTokens: 2 * length,
    targets: { maxPerDocument: targets, minContext: Math.floor(length / 4) },
    // No answer ends before its last token, on either side.
    sampling: { maxTokens: newTokens, stopTokens: [], keepActivations },
  })
  return new Trainer({
    engine: await Engine.create(architecture, { dtype, seed: 1 }),
    ...{ tokenizer, corpus, reward, method: change(method), steps: rounds + 1 },
    // Gradients of both ways differ by rounding; weights that stay keep the answers of all rounds the same.
    optimizer: { learningRate: 0 },
  })
}

/** Keeps the lengths of the prompts of the last step. */
function watched(method: Method): Method {
  return {
    ...method,
    async collect(tools) {
      const sample: typeof tools.engine.sample = (forest, options) => {
        promptLengths.splice(0, Infinity, ...Array.from(options.from, (segment) => forest.flatten(segment).length))
        return tools.engine.sample(forest, options)
      }
      return method.collect({ ...tools, engine: { ...tools.engine, sample } })
    },
  }
}

const parts = ['text', 'score', 'rollouts', 'reward', 'update'] as const
const median = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!
const range = (numbers: readonly number[]) => `${Math.min(...numbers).toFixed(1)}–${Math.max(...numbers).toFixed(1)}`

function line(name: string, steps: readonly StepMetrics[]): string {
  const seconds = (part: string) => median(steps.map((step) => step[part]!))
  const cells = [...parts.map((part) => seconds(`seconds/${part}`)), seconds('step_time')]
  const tokens = median(steps.map((step) => step['tokens/prefilled']! + step['tokens/trained']!))
  return `${name.padEnd(16)} ${cells.map((cell) => cell.toFixed(4).padStart(9)).join('')} ${String(tokens).padStart(12)}`
}

function ratio(of: string, name: string, slow: readonly StepMetrics[], fast: readonly StepMetrics[]): string {
  const ratios = fast.map((step, i) => slow[i]![name]! / step[name]!)
  return `${of} ${median(ratios).toFixed(1)} (${range(ratios)})`
}

const folder = await mkdtemp(join(tmpdir(), 'foretoken-bench-'))
try {
  const texts = Array.from({ length: documents * (rounds + 1) }, (_, i) => syllableText(length, i))
  const file = join(folder, 'corpus.jsonl')
  await writeFile(file, texts.map((text) => `${JSON.stringify({ text })}\n`).join(''))
  const corpus = await Corpus.open({ sources: [{ path: file }], shuffle: { seed: 0 } })
  const shared = { trainer: await newTrainer(corpus, watched), steps: [] as StepMetrics[] }
  const computed = { trainer: await newTrainer(corpus, watched, false), steps: [] as StepMetrics[] }
  const flat = { trainer: await newTrainer(corpus, withoutSharing), steps: [] as StepMetrics[] }
  for (let round = 0; round <= rounds; ++round) {
    const rewards = new Set<number>()
    for (const { trainer, steps } of [shared, computed, flat]) {
      const step = (await trainer.next())!
      rewards.add(step.reward!)
      if (round > 0) steps.push(step) // the first one warms up
    }
    if (rewards.size > 1) throw new Error('the answers must be the same in all ways')
  }
  console.log(
    `12.6M, ${dtype}: ${documents} documents of ${length} tokens, ${targets} targets of each (prompts of ` +
      `${Math.min(...promptLengths)} to ${Math.max(...promptLengths)} tokens), ${group} rollouts of ${newTokens} tokens`,
  )
  console.log(
    `${'seconds'.padEnd(16)} ${[...parts, 'step'].map((name) => name.padStart(9)).join('')} prompt+train tokens`,
  )
  console.log(line('shared', shared.steps))
  console.log(line('nothing kept', computed.steps))
  console.log(line('without sharing', flat.steps))
  console.log(`nothing kept, times as long: ${ratio('step', 'step_time', computed.steps, shared.steps)}`)
  const named = (of: string, name: string) => ratio(of, name, flat.steps, shared.steps)
  console.log(
    `without sharing, times as long: ${named('step', 'step_time')}, ${named('update', 'seconds/update')}, ` +
      named('rollouts', 'seconds/rollouts'),
  )
  const light = shared.steps.map((step) => (step['seconds/text']! + step['seconds/reward']!) / step.step_time)
  console.log(`text and reward: ${(100 * median(light)).toFixed(2)} % of a step, bar 5 %`)
  if (process.env.PYTHON) {
    const script = join(import.meta.dirname, 'peers', 'grpo_trl.py')
    const work = ['--prompts', promptLengths.join(','), '--group', String(group), '--tokens', String(newTokens)]
    const output = execFileSync(process.env.PYTHON, [script, '--repeats', values['trl-rounds'], ...work], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const { value } = JSON.parse(output.trim().split('\n').at(-1)!) as { value: number }
    const ours = median(shared.steps.map((step) => step.step_time))
    console.log(`TRL's GRPOTrainer, float32: ${value.toFixed(1)} s a step, times as long: ${(value / ours).toFixed(1)}`)
  } else {
    console.log('TRL: not measured; PYTHON names a Python that has bench/peers/requirements.txt')
  }
} finally {
  await rm(folder, { recursive: true })
}
