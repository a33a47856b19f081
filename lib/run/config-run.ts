import { z } from 'zod'
import { sources } from './config-data.js'
import { amount, count, section } from './config-parts.js'

/** Accuracy on held-out text. */
export const evaluationConfig = section('accuracy on held-out documents', {
  sources: sources().optional().describe('other documents than the held-out share of the corpus'),
  every: count(0).default(50).describe('steps between evaluations; 0: none between'),
  before: z.boolean().default(true).describe('also before the first step'),
  after: z.boolean().default(true).describe('also after the last step'),
  documents: count().default(64).describe('held-out documents'),
  positionsPerDocument: count().default(8).describe('positions of each, chosen by the seed among those above 0.5 nats'),
  samples: count().default(1).describe('answers per position; ignored when greedy'),
  greedy: z.boolean().default(false).describe('most probable tokens instead of samples'),
  reasoning: z.boolean().default(true).describe('also measure next-token reasoning, not only prediction'),
})

/** What is kept. */
export const checkpointConfig = section('checkpoints: Hugging Face folder and training state', {
  every: count(0).default(50).describe('steps between checkpoints; 0: only at the end'),
  keepLast: count().default(2).describe('newest ones that stay'),
  keepBest: z.boolean().default(true).describe('also the one with the best evaluation'),
  dtype: z
    .enum(['float32', 'bfloat16', 'float16'])
    .optional()
    .describe('of the saved weights; that of the checkpoint the run began with where left out'),
})

/** What is written along the way. */
export const loggingConfig = section('what is written along the way', {
  every: count().default(1).describe('steps between lines of metrics.jsonl'),
  samples: count(0).default(4).describe('answers of a logged step that go to samples.jsonl'),
  samplesEvery: count().default(10).describe('steps between them'),
  progressSeconds: amount().default(10).describe('seconds between progress lines where the output is no terminal'),
  report: z.boolean().default(true).describe('write report.html at evaluations and at the end'),
})
