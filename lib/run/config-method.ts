import { z } from 'zod'
import { sources } from './config-data.js'
import { amount, count, section, share } from './config-parts.js'

/** Reinforcement pre-training; the defaults are the paper's, and the usual ones where it is silent. */
export const rptConfig = section('method rpt: groups, rewards and loss', {
  contextsPerStep: count().default(256).describe('positions (groups) per step'),
  rolloutsPerContext: count(2).default(8).describe('answers per position'),
  reward: z
    .string()
    .min(1)
    .default('prefix-match')
    .describe(
      'prefix-match | first-token | dense | conditional-dense | log-prob | information-gain, or a module ' +
        '(./my-reward.js) whose default export is a reward or a function of one answer',
    ),
  rewardOptions: z.record(z.string(), z.unknown()).prefault({}).describe('options of the reward'),
  averageTau: share()
    .optional()
    .describe(
      'keeps a moving average of the weights, average = tau average + (1 - tau) weights after each update, for rewards ' +
        'that ask for it; where left out 0.999 with information-gain, and none otherwise',
    ),
  advantage: z
    .enum(['grpo', 'dr-grpo', 'rloo', 'opo', 'batch'])
    .default('grpo')
    .describe(
      'grpo: (r - mean) / (std + 1e-6) of the group; dr-grpo: r - mean; rloo: r - mean of the others; ' +
        'opo: r - mean weighted by length; batch: r - mean over the std of the step',
    ),
  loss: z.enum(['clip', 'cispo', 'gspo']).default('clip').describe('form of the policy gradient'),
  aggregation: z
    .enum(['token-mean', 'sequence-mean', 'constant'])
    .default('token-mean')
    .describe('mean over all response tokens, over sequences of their means, or the sum over a constant'),
  clip: z
    .tuple([amount(), amount()])
    .default([0.2, 0.2])
    .describe('bounds of the ratio below and above 1, inert while on-policy; clip-higher is [0.2, 0.28]'),
  dualClip: z
    .number()
    .gt(1)
    .optional()
    .describe('bound of the loss of negative advantages, above 1; off where left out'),
  kl: z
    .strictObject({
      coefficient: amount().default(0).describe('weight; 0: no reference is kept'),
      estimator: z.enum(['k1', 'k2', 'k3']).default('k3').describe('how it is estimated from samples'),
    })
    .prefault({})
    .describe('penalty on the divergence from the model at the start'),
  entropyCoefficient: z.number().default(0).describe('weight of an entropy bonus'),
  updatesPerBatch: count().default(1).describe('updates a batch is cut into; 1 is exactly on-policy'),
  epochsPerBatch: count().default(1).describe('times a batch is gone through'),
  overlong: z
    .strictObject({
      buffer: count(0).default(0).describe('tokens before sampling.maxTokens over which it grows; 0: none'),
      factor: amount().default(1).describe('what is taken off the reward at the limit'),
    })
    .prefault({})
    .describe('penalty on answers that come near the limit'),
  auxiliary: z
    .strictObject({
      coefficient: amount().default(0).describe('weight; 0: none'),
      maskTargets: z.boolean().default(true).describe('leave out the positions that are asked about'),
    })
    .prefault({})
    .describe('next-token loss on the documents beside the policy loss (RMT)'),
  dynamicSampling: z
    .strictObject({
      fromStep: count(0).default(500).describe('first step, from 0'),
      maxTries: count().default(3).describe('batches of rollouts in a step at most; 1: never replace'),
    })
    .prefault({})
    .describe('replace groups whose rewards are all equal by fresh ones'),
})

/** How rollouts are drawn. */
export const samplingConfig = section('how rollouts are drawn', {
  temperature: z.number().positive().default(0.8).describe('of the softmax, in sampling and in the loss'),
  topP: z.number().gt(0).max(1).default(1).describe('only the most probable tokens of this mass; 1: all'),
  topK: count(0).default(0).describe('only so many most probable tokens; 0: all'),
  minP: share().default(0).describe("only tokens with this share of the best one's probability; 0: all"),
  maxTokens: count().default(8192).describe('most tokens of a response'),
  maxPromptTokens: count().default(4096).describe('most tokens of a prompt; longer documents are asked about in parts'),
  stopTexts: z
    .array(z.string().min(1))
    .default([])
    .describe("texts that end an answer, beside the tokenizer's stop tokens"),
  bannedTokens: z.array(count(0)).default([]).describe('token ids without a chance'),
  keepActivations: z
    .boolean()
    .default(true)
    .describe('keep them for the update, which then makes no forward pass: as far as half of the memory left allows'),
})

/** The control on the same text. */
export const ntpConfig = section('method ntp: next-token prediction on the documents', {
  documentsPerStep: count().default(32).describe('documents per step; each part of a long one counts'),
  tokensPerStep: count().optional().describe('instead: as many documents as reach so many tokens'),
  maxTokens: count().default(2048).describe('longest part of a document, in tokens'),
  endOfText: z.boolean().optional().describe('documents end with the end-of-text token; default where there is one'),
})

/** The control on given traces. */
export const sftConfig = section('method sft: given reasoning traces, mixed with documents', {
  traces: sources()
    .optional()
    .describe('texts of a context, the separator and an answer; gone through again and again, shuffled by the seed'),
  separator: z.string().min(1).default('<think>').describe('what stands between context and answer'),
  contextWeight: amount().default(0).describe("weight of the contexts' tokens in the loss; answers have 1"),
  sequencesPerStep: count().default(32).describe('traces and documents per step'),
  textShare: share().default(0).describe('share of them that are documents of the corpus'),
  maxTokens: count().default(2048).describe('longest trace and longest part of a document, in tokens'),
  onBadTrace: z.enum(['error', 'skip']).default('error').describe('what a trace without separator or too long does'),
})

/** AdamW. */
export const optimizerConfig = section('AdamW', {
  learningRate: amount().default(1e-6).describe('peak learning rate'),
  betas: z
    .tuple([z.number().min(0).lt(1), z.number().min(0).lt(1)])
    .default([0.9, 0.999])
    .describe('decay of the two moments'),
  epsilon: z.number().positive().default(1e-8).describe('added to the root of the second moment'),
  weightDecay: amount().default(0.01).describe('decoupled; norms and biases are spared'),
  decayAll: z.boolean().default(false).describe('decay norms and biases too'),
  maxGradNorm: amount().default(1).describe('gradients are scaled down to this norm; 0: never'),
})

/** The learning rate over the run. */
export const scheduleConfig = section('the learning rate over the run', {
  kind: z.enum(['constant', 'linear', 'cosine']).default('constant').describe('after the warm-up'),
  warmup: count(0).default(0).describe('steps over which it rises from 0'),
  final: share().default(0).describe('share of the peak that linear and cosine end at'),
})
