import type { RunConfig, RunConfigInput } from './config-schema.js'

/** What a method's defaults change against the schema's, which are those of `rpt`. */
export type Preset = Omit<RunConfigInput, 'model'>

/**
 * The defaults of each method, by name. `rpt` is the schema itself. The controls see the same text in the same order; a single
 * update of next-token training is far smaller than one of RPT, hence their own learning rate and warm-up.
 */
export const presets: Readonly<Record<RunConfig['method'], Preset>> = {
  rpt: {},
  ntp: { optimizer: { learningRate: 1e-5 }, schedule: { kind: 'cosine', warmup: 20, final: 0.1 } },
  sft: { optimizer: { learningRate: 1e-5 }, schedule: { kind: 'cosine', warmup: 20, final: 0.1 } },
}

/** What `foretoken pretrain` adds: a new model learns at a higher rate, from sequences instead of rollouts. */
export const pretrainPreset: Preset = {
  method: 'ntp',
  optimizer: { learningRate: 1e-3, betas: [0.9, 0.95], weightDecay: 0.1 },
  schedule: { kind: 'cosine', warmup: 100, final: 0.1 },
}
