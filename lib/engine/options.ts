import type { WeightsKind } from './results.js'

/** A whole number from 0 to 2^64 - 1; above 2^53 a bigint. */
export type Seed = number | bigint

/** What every long call takes. */
export interface ControlOptions {
  /** Aborting rejects with the signal's reason: at once while the call waits, at the next check while it runs. */
  signal?: AbortSignal | undefined
  /** Called with tokens done and in all, now and then; not for every step when the event loop is busy. */
  onProgress?: ((done: number, total: number) => void) | undefined
}

/** Where and how an engine computes. */
export interface EngineOptions {
  /** `'auto'` (default), `'cpu'`, `'cuda'`, `'cuda:1'`, or `'reference'`: double precision, slow, for tests. */
  device?: string | undefined
  /** Of activations and products; the default is float32. Norms, softmax and log-probs are float32 in either. */
  dtype?: 'float32' | 'bfloat16' | undefined
  /** Let float32 products of a GPU round their operands to TF32 (10 bits of mantissa); the default is false. */
  allowTf32?: boolean | undefined
  /**
   * Of master weights and AdamW moments: float32 (default, 16 bytes a parameter with its gradient) or bfloat16 with
   * stochastic rounding (10 bytes; gradients are float32 in either).
   */
  stateDtype?: 'float32' | 'bfloat16' | undefined
  /** CPU threads; the default is what affinity and cgroup allow. */
  threads?: number | undefined
  /** Most packed tokens in a micro-batch (default 2048); a longer path is still taken whole. */
  batchTokens?: number | undefined
  /** Capacity of the key/value store in tokens; the default is what the requests need. */
  cacheTokens?: number | undefined
  /** Bytes that may be used; the default is what the machine and the cgroup have. */
  memoryLimit?: number | undefined
  /** Drop each block's activations and compute them again in the backward pass. */
  recompute?: boolean | undefined
}

/** Standard deviations of a new model's weights; what is left out is the config's initializer_range. */
export interface Initialisation {
  /** Of the embedding. */
  embedding?: number | undefined
  /** Of the output head. */
  head?: number | undefined
  /** Of q, k, v, gate and up. */
  projection?: number | undefined
  /** Of o and down. */
  outputProjection?: number | undefined
  /** Multiply the two projection values by 1 / √(inputs). */
  scaleByFanIn?: boolean | undefined
}

/** How a new model is made. */
export interface CreateOptions extends EngineOptions {
  /** Default 0. */
  seed?: Seed | undefined
  /** Standard deviations other than the config's. */
  initialisation?: Initialisation | undefined
}

export interface ScoreOptions extends ControlOptions {
  /** Above 0, default 1. */
  temperature?: number | undefined
  /** Which weights answer; default `'current'`. */
  weights?: WeightsKind | undefined
  /** k: also give the entropy of the k most probable tokens, renormalised. */
  topEntropy?: number | undefined
  /** Also give the most probable token in place of each. */
  argmax?: boolean | undefined
  /** Tokens of the forest, by index, whose next-token logits are wanted in full. */
  logits?: ArrayLike<number> | undefined
}

/** What ends a rollout before `maxTokens`. */
export interface StopOptions {
  /** Sampling one of these ends the rollout; it is kept. */
  tokens?: ArrayLike<number> | undefined
  /** The token that completes one ends the rollout and is kept; needs `setTokenBytes`. Strings are taken as UTF-8. */
  texts?: readonly (string | Uint8Array)[] | undefined
}

export interface SampleOptions extends ControlOptions {
  /** The segments to continue. */
  from: ArrayLike<number>
  /** Rollouts per segment, default 1. */
  n?: number | undefined
  /** Default 256. */
  maxTokens?: number | undefined
  /** Stop tokens have no chance before this many; default 0. */
  minTokens?: number | undefined
  /** Default 1; 0 takes the most probable token, and gives its log-prob at temperature 1. */
  temperature?: number | undefined
  /** Only the k most probable tokens; 0 (default): all. */
  topK?: number | undefined
  /** Only the most probable tokens that together reach this mass; 1 (default): all. */
  topP?: number | undefined
  /** Only tokens with at least this share of the most probable one's probability; 0 (default): all. */
  minP?: number | undefined
  /** Default 0. The same seed gives the same rollouts, whatever else is in the batch. */
  seed?: Seed | undefined
  /** (from · n) the random stream of each rollout; default 0, 1, 2, … */
  rolloutIds?: ArrayLike<number> | undefined
  /** What else ends a rollout; default nothing. */
  stop?: StopOptions | undefined
  /** Tokens without a chance. */
  bannedTokens?: ArrayLike<number> | undefined
  /** Most rollouts decoded at once; the default is what the store holds. */
  maxSequences?: number | undefined
  /** Which weights sample; default `'current'`. */
  weights?: WeightsKind | undefined
  /**
   * Keep what the network computes, until the weights change or the next `sample`: an `accumulate` of the same paths then
   * makes no forward pass, with the same bits. As far as half of the memory left allows; on the CPU, with the current weights.
   */
  keepActivations?: boolean | undefined
}

export interface AccumulateOptions extends ControlOptions {
  /** Above 0, default 1; the one that was sampled with. */
  temperature?: number | undefined
  /** Default: the engine's. */
  recompute?: boolean | undefined
  /** Default: the engine's. Changes speed and memory, not the loss. */
  batchTokens?: number | undefined
}

/** AdamW with decoupled weight decay (arXiv 1711.05101). */
export interface StepOptions {
  /** At least 0. */
  learningRate: number
  /** Default [0.9, 0.999]. */
  betas?: readonly [number, number] | undefined
  /** Default 1e-8. */
  epsilon?: number | undefined
  /** Default 0. */
  weightDecay?: number | undefined
  /** Gradients are scaled down to this global norm; 0 (default): never. */
  maxGradNorm?: number | undefined
  /** Decay norms and biases too. */
  decayAll?: boolean | undefined
}

/** How a model is written. */
export interface SaveOptions {
  /** Aborting leaves no folder behind. */
  signal?: AbortSignal | undefined
  /** Default: what the checkpoint was stored in. */
  dtype?: 'float32' | 'bfloat16' | 'float16' | undefined
  /** Larger models are split over several files; default: one file. */
  maxShardBytes?: number | undefined
}

/** The work that a memory plan is made for. */
export interface MemoryPlanOptions {
  /** Packed tokens of the largest micro-batch; default: the engine's `batchTokens`; 0: no training. */
  trainingTokens?: number | undefined
  /** Contexts that are continued at once; 0 (default): no sampling. */
  contexts?: number | undefined
  /** Tokens of each; with `newTokens` also the longest sequence that is trained on, which is else `trainingTokens`. */
  contextTokens?: number | undefined
  /** Rollouts per context, default 1. */
  rollouts?: number | undefined
  /** Most new tokens of a rollout. */
  newTokens?: number | undefined
  /** Most rollouts decoded at once; default: as `sample` decides. */
  maxSequences?: number | undefined
  /** As in `sample`. */
  keepActivations?: boolean | undefined
}

/** The bytes of each token, for stop texts: token t is `bytes[offsets[t]]` up to, not including, `bytes[offsets[t + 1]]`. */
export interface TokenBytes {
  /** The bytes of all tokens, one after another. */
  bytes: Uint8Array
  /** (V + 1), from 0 to `bytes.length`, never falling. */
  offsets: ArrayLike<number>
}
