/** Which weights a call computes with: those being trained, the frozen copy, or the moving average. */
export type WeightsKind = 'current' | 'reference' | 'average'

/** Which tensor of a parameter to read. */
export type TensorKind = 'weight' | 'gradient' | 'reference' | 'average'

/** Arrays of N entries, one per token of the forest in the order of adding. */
export interface ScoreResult {
  /** (N) log-prob of each token given its prefix, in nats; NaN for the first token of a root. */
  logprobs: Float32Array
  /** (N) entropy of the distribution that predicts the token, in nats; NaN for the first token of a root. */
  entropy: Float32Array
  /** (N) entropy of its k most probable tokens, renormalised; only with `topEntropy`. */
  topEntropy?: Float32Array
  /** (N) most probable token in the token's place, -1 for the first token of a root; only with `argmax`. */
  argmax?: Int32Array
  /** (tokens asked for, V) row-major logits that follow each token, tempered by nothing; only with `logits`. */
  logits?: Float32Array
}

/** One continuation of a segment. */
export interface Rollout {
  /** The segment that it continues. */
  segment: number
  /** What was sampled, with the token that ended it. */
  tokens: Int32Array
  /** Log-prob of each token under the tempered softmax, before any truncation. */
  logprobs: Float32Array
  /** A stop token, a stop text, or `maxTokens`. */
  stop: 'token' | 'text' | 'length'
}

/** What sampling took. */
export interface SampleStatistics {
  /** Tokens of contexts that went through the network; shared ones count once. */
  prefillTokens: number
  /** New tokens. */
  decodeTokens: number
  /** Passes in which every running rollout got one more token. */
  decodeSteps: number
  /** How often contexts were taken into the key/value store: 1 when all of them fitted at once. */
  waves: number
  /** Tokens whose activations are kept; only with `keepActivations`. */
  keptTokens: number
}

/** What `sample` gives. */
export interface SampleResult {
  /** n per entry of `from`, in order. */
  rollouts: Rollout[]
  /** What it took. */
  statistics: SampleStatistics
}

/** Of one loss term; means are over its weighted tokens. */
export interface TermStatistics {
  /** What the term adds to the total: normalised and multiplied by its coefficient. */
  loss: number
  /** How many tokens have a non-zero weight. */
  tokens: number
  /** Mean entropy in nats of the distribution that each token was drawn from. */
  entropy: number
  /** Mean log-prob. */
  logprob: number
  /** Share of tokens (gspo: sequences) with a negative advantage that were clipped from below. */
  clipLow: number
  /** Share with a positive advantage that were clipped from above. */
  clipHigh: number
  /** Share clipped either way. */
  clipRegion: number
  /** Share bounded by the dual clip. */
  dualClip: number
  /** Mean importance ratio; 1 when exactly on-policy. */
  ratioMean: number
  /** Greatest importance ratio. */
  ratioMax: number
  /** Mean k3 estimate of the divergence from the old policy. */
  approximateKl: number
  /** Mean of the chosen estimator against the reference. */
  kl: number
}

/** What `accumulate` gives. */
export interface AccumulateResult {
  /** The sum of the terms' losses. */
  loss: number
  /** In the order given. */
  terms: TermStatistics[]
  /** Tokens that went through the network; shared ones count once, and what nothing depends on does not. */
  tokens: number
  /** Of these, the ones that went through it backward only: `sample` had kept their activations. */
  keptTokens: number
  /** Into how many passes the forest was cut. */
  microBatches: number
}

/** What `step` gives. */
export interface StepResult {
  /** Global norm before clipping. */
  gradNorm: number
  /** Updates so far, this one included. */
  step: number
}

/** A tensor of the model. */
export interface Parameter {
  /** As in the checkpoint, such as `model.layers.0.mlp.up_proj.weight`. */
  readonly name: string
  /** Its sizes, row-major. */
  readonly shape: readonly number[]
  /** What the master weights are kept in. */
  readonly dtype: 'float32' | 'bfloat16' | 'float64'
}

/** A line of a memory plan. */
export interface MemoryItem {
  /** What the memory is for: "weights", "gradients", … */
  name: string
  /** Of the peak of the described work. */
  bytes: number
}
