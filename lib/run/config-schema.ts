import { z } from 'zod'
import { corpusConfig, difficultyConfig, promptConfig } from './config-data.js'
import { ntpConfig, optimizerConfig, rptConfig, samplingConfig, scheduleConfig, sftConfig } from './config-method.js'
import { engineConfig, modelConfig } from './config-model.js'
import { count, path } from './config-parts.js'
import { checkpointConfig, evaluationConfig, loggingConfig } from './config-run.js'

/** The whole of a run: every key, its default and its text. The defaults are those of the paper's recipe. */
export const configSchema = z.strictObject({
  method: z
    .enum(['rpt', 'ntp', 'sft'])
    .default('rpt')
    .describe('rpt: reinforcement pre-training; ntp: next-token prediction; sft: reasoning traces mixed with text'),
  seed: count(0).max(Number.MAX_SAFE_INTEGER).default(0).describe('of everything that is drawn'),
  steps: count().default(1000).describe('optimizer steps, or batches of rollouts where each makes several'),
  output: path().optional().describe('run directory; runs/<method>-<date> where left out'),
  model: modelConfig,
  engine: engineConfig,
  corpus: corpusConfig,
  prompt: promptConfig,
  difficulty: difficultyConfig,
  rpt: rptConfig,
  ntp: ntpConfig,
  sft: sftConfig,
  sampling: samplingConfig,
  optimizer: optimizerConfig,
  schedule: scheduleConfig,
  evaluation: evaluationConfig,
  checkpoint: checkpointConfig,
  logging: loggingConfig,
})

/** A config with everything filled in. */
export interface RunConfig extends z.output<typeof configSchema> {}

/** A config as people write it. */
export interface RunConfigInput extends z.input<typeof configSchema> {}
