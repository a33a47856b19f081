import { z } from 'zod'
import { amount, count, path, section } from './config-parts.js'

/** Which model is trained. */
export const modelConfig = z
  .strictObject({
    path: path().optional().describe('folder of a Hugging Face checkpoint: config.json, safetensors, tokenizer.json'),
    create: z
      .union([path(), z.record(z.string(), z.unknown())])
      .optional()
      .describe('a new model instead of `path`: the fields of a config.json, or the path of one'),
    initialisation: z
      .strictObject({
        embedding: amount()
          .optional()
          .describe("standard deviation of the embedding; else the config's initializer_range"),
        head: amount().optional().describe('standard deviation of the output head; else initializer_range'),
        projection: amount().optional().describe('standard deviation of q, k, v, gate and up; else initializer_range'),
        outputProjection: amount().optional().describe('standard deviation of o and down; else initializer_range'),
        scaleByFanIn: z
          .boolean()
          .default(false)
          .describe('multiply the two projection values by 1 / sqrt(number of inputs)'),
      })
      .prefault({})
      .describe('standard deviations of the weights of a new model; small models learn nothing from the usual 0.02'),
    tokenizer: path().optional().describe('folder of the tokenizer; `path` where left out, needed with `create`'),
  })
  .refine((model) => (model.path === undefined) !== (model.create === undefined), {
    error: 'needs either path (a checkpoint) or create (a new model)',
  })
  .refine((model) => model.create === undefined || model.tokenizer !== undefined, {
    path: ['tokenizer'],
    error: 'is needed for a new model: the folder that has its tokenizer.json',
  })
  .prefault({})
  .describe('the model and its tokenizer')

/** Where and how it computes. */
export const engineConfig = section('where and how the engine computes', {
  device: z
    .string()
    .regex(/^(auto|cpu|reference|cuda(:\d+)?)$/, { error: 'must be auto, cpu, cuda, cuda:1 (and so on) or reference' })
    .default('auto')
    .describe('auto | cpu | cuda | cuda:N | reference (double precision, slow, for tests)'),
  dtype: z
    .enum(['float32', 'bfloat16'])
    .default('float32')
    .describe('of activations and products; norms, softmax and log-probs are float32 in either'),
  allowTf32: z
    .boolean()
    .default(false)
    .describe('let float32 products of a GPU round their operands to TF32: faster, with 10 bits of mantissa'),
  stateDtype: z
    .enum(['float32', 'bfloat16'])
    .default('float32')
    .describe(
      'of master weights and optimizer moments: float32 (16 bytes a parameter, its gradient included) or bfloat16 with ' +
        'stochastic rounding (10)',
    ),
  threads: count(0).default(0).describe('CPU threads; 0: what affinity and cgroup allow'),
  batchTokens: count().default(2048).describe('most tokens in a micro-batch; changes speed and memory, not the method'),
  cacheTokens: count(0).default(0).describe('tokens that the key/value store holds; 0: as the requests need'),
  memoryLimit: count(0).default(0).describe('bytes the engine may use; 0: what the machine has'),
  recompute: z
    .boolean()
    .default(false)
    .describe('compute activations again in the backward pass: less memory, about a third more time'),
})
