import { type RptOptions, rpt } from '../../lib/algorithm/rpt.js'
import { textsCorpus } from '../../lib/algorithm/text-corpus.js'
import { PhiloxStream } from '../../lib/corpus/philox.js'
import { Engine } from '../../lib/engine/engine.js'
import { rewardFromFunction } from '../../lib/reward/reward.js'
import type { StepMetrics, TrainerOptions } from '../../lib/train/types.js'
import { byteLevelTokenizer } from '../text/small-tokenizers.js'

export const tokenizer = byteLevelTokenizer()

/** A model of 20,000 parameters over bytes. */
export function tinyEngine(options: { seed?: number } = {}): Promise<Engine> {
  return Engine.create(
    {
      model_type: 'qwen3',
      vocab_size: tokenizer.vocabSize,
      hidden_size: 32,
      intermediate_size: 48,
      num_hidden_layers: 2,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 16,
      max_position_embeddings: 512,
      rms_norm_eps: 1e-6,
      rope_theta: 10000,
      tie_word_embeddings: false,
      attention_bias: false,
      hidden_act: 'silu',
      initializer_range: 0.02,
      torch_dtype: 'float32',
    },
    { seed: options.seed ?? 1, initialisation: { embedding: 1 }, threads: 1 },
  )
}

/** Sums, written out. */
export const corpus = textsCorpus(
  Array.from({ length: 40 }, (_, i) => {
    const random = new PhiloxStream(5, 99, i)
    const terms = [random.below(50), random.below(50)] as const
    return `${terms[0]} and ${terms[1]} make ${terms[0] + terms[1]}.`
  }),
)

/** Judges something that a model without any training does now and then: an even first token. */
export const evenFirst = rewardFromFunction(({ response }) => (response[0]! % 2 === 0 ? 1 : 0), 'even-first')

export const tinyRpt = (options: RptOptions = {}) =>
  rpt({
    prompt: { template: '{context}', think: '?' },
    maxPromptTokens: 64,
    contextsPerStep: 6,
    rolloutsPerContext: 4,
    targets: { maxPerDocument: 3, minContext: 2 },
    ...options,
    sampling: { maxTokens: 5, temperature: 1, ...options.sampling },
  })

export async function tinyOptions(options: Partial<TrainerOptions> = {}): Promise<TrainerOptions> {
  return {
    engine: await tinyEngine(),
    tokenizer,
    corpus,
    method: tinyRpt(),
    reward: evenFirst,
    steps: 4,
    seed: 7,
    optimizer: { learningRate: 3e-3 },
    ...options,
  }
}

/** Metrics without those that depend on the machine. */
export function withoutTimes(metrics: StepMetrics): Record<string, number> {
  return Object.fromEntries(
    Object.entries(metrics).filter(([name]) => !/^(seconds\/|step_time$|tokens_per_second$)/.test(name)),
  )
}

/** Every weight of a model. */
export async function weightsOf(engine: Engine): Promise<Record<string, Float32Array>> {
  const weights: Record<string, Float32Array> = {}
  for (const { name } of engine.parameters()) weights[name] = await engine.read(name)
  return weights
}
