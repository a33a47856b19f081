import { z } from 'zod'
import { sources } from './config-data.js'
import { amount, count, section } from './config-parts.js'

/** Accuracy on held-out text. */
export const evaluationConfig = section('accuracy on held-out documents', {
  enabled: z.boolean().default(true).describe('evaluate at all'),
  sources: sources().optional().describe('other documents than the held-out share of the corpus'),
  every: count(0).default(50).describe('steps between evaluations; 0: only after the last step'),
  before: z.boolean().default(true).describe('also before the first step'),
  documents: count().default(64).describe('held-out documents'),
  positionsPerDocument: count().default(8).describe('positions of each, chosen by the seed among those above 0.5 nats'),
  samples: count().default(1).describe('answers per position'),
  temperature: amount().default(0.8).describe('of the answers; 0: the most probable tokens'),
  reasoning: z.boolean().default(true).describe('also measure next-token reasoning, not only prediction'),
  forbidden: z
    .array(count(0))
    .default([])
    .describe('token ids; where there are any, a second round of answers without them, such as without brief guesses'),
  keepSamples: count(0).default(8).describe('answers of an evaluation that go to samples.jsonl'),
})

/** What is kept. */
export const checkpointConfig = section('checkpoints: Hugging Face folder and training state', {
  every: count(0).default(50).describe('steps between checkpoints; 0: only at the end'),
  keepLast: count().default(2).describe('newest ones that stay'),
  keepBest: z.boolean().default(true).describe('also the one with the best evaluation'),
  bestMetric: z
    .string()
    .optional()
    .describe(
      'metric that tells the best; default accuracy on the easy split: of reasoning for rpt, else of prediction',
    ),
  dtype: z
    .enum(['float32', 'bfloat16', 'float16'])
    .optional()
    .describe('of the saved weights; that of the checkpoint the run began with where left out'),
})

/** What is written along the way. */
export const loggingConfig = section('what is written along the way', {
  samplesPerStep: count(0).default(8).describe('answers of a step that go to samples.jsonl'),
  progressSeconds: amount().default(10).describe('seconds between progress lines where the output is no terminal'),
  report: z.boolean().default(true).describe('write report.html at evaluations and at the end'),
})
