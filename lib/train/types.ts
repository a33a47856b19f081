import type { Method, Sample, StepPart } from '../algorithm/method.js'
import type { LearningRateSchedule } from '../algorithm/schedule.js'
import type { TextCorpus } from '../algorithm/text-corpus.js'
import type { Engine } from '../engine/engine.js'
import type { SaveOptions } from '../engine/options.js'
import type { EvaluationOptions, EvaluationReport, EvaluationTarget } from '../evaluate/types.js'
import type { Reward } from '../reward/reward.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** What a `Trainer` is made of. */
export interface TrainerOptions {
  /** The model that learns. */
  engine: Engine
  /** Its tokenizer. */
  tokenizer: Tokenizer
  /** Where training documents come from: a `Corpus`, or `textsCorpus([...])`. */
  corpus: TextCorpus
  /** What is learned and how; default `rpt()`. */
  method?: Method
  /** Default prefix match. */
  reward?: Reward
  /** The run ends after so many steps, or when the text ends. */
  steps: number
  /** Passes over the corpus. Default without end. */
  epochs?: number
  /** Which documents; default `train`. */
  part?: 'train' | 'held-out' | 'all'
  /** What a document whose tokens do not stand for its bytes does. Default `error`. */
  onBadDocument?: 'error' | 'skip'
  /** Every draw of the run derives from it. Default 0. */
  seed?: number
  /** AdamW; the defaults are the paper's. */
  optimizer?: OptimizerOptions
  /**
   * After every update the moving average moves by 1 - tau towards the weights. Default 0.999 for a reward that needs
   * the average, else there is none.
   */
  averageTau?: number
  /** Default: none are written. */
  checkpoint?: CheckpointOptions
  /** Default: none. */
  evaluation?: TrainerEvaluation
  /** Aborting finishes the step under way, writes a checkpoint and ends the iteration without an error. */
  signal?: AbortSignal
  /** Told what happens; for logs and progress. An error it throws ends the run. */
  onEvent?: (event: TrainEvent) => void
}

/** AdamW; the defaults are the paper's. */
export interface OptimizerOptions {
  /** Default 1e-6. */
  learningRate?: number
  /** Default constant, without warm-up. */
  schedule?: LearningRateSchedule
  /** Default [0.9, 0.999]. */
  betas?: readonly [number, number]
  /** Default 1e-8. */
  epsilon?: number
  /** Default 0.01. */
  weightDecay?: number
  /** Default 1; 0 never clips. */
  maxGradNorm?: number
  /** Also decays norms and biases. Default false. */
  decayAll?: boolean
}

/** Where and when checkpoints are written. */
export interface CheckpointOptions {
  /** Holds `step-N` folders. */
  directory: string
  /** Every so many steps, and always at the end. Default only at the end. */
  every?: number
  /** The newest so many are kept. Default 2. */
  keepLast?: number
  /** Beside them the best by a metric of a step or of its evaluation. */
  keepBest?: { metric: string; mode?: 'max' | 'min' }
  /** How weights are stored; default as the engine's own. */
  save?: SaveOptions
  /** Adds files to a checkpoint before it gets its name, such as a tokenizer for a new model. */
  addFiles?: (directory: string) => Promise<void>
}

/** Evaluation on fixed positions of held-out documents while training. */
export interface TrainerEvaluation extends EvaluationOptions {
  /** The questions. */
  targets: readonly EvaluationTarget[]
  /** Every so many steps, and always after the last. */
  every: number
}

/**
 * The numbers of one step, named as in TRL where it has a name. Plain JSON; a number that does not apply is absent.
 *
 * Names that begin with `seconds/`, and `step_time`, `tokens_per_second` depend on the machine; all others are the same
 * in every run with the same seed, data, settings and kind of machine.
 *
 * All methods: `loss`, `grad_norm`, `learning_rate`, `updates` (of this step), `num_tokens` (through the network since
 * the run began), `tokens/trained|generated|prefilled|scored` and `flops` (of this step), `total_flops`, `epoch`,
 * `entropy`, `step_time`, `tokens_per_second`, `seconds/text|score|rollouts|reward|update`. FLOPs count 6 per parameter
 * and trained token and 2 per parameter and any other token; shared tokens count once. With several loss terms,
 * `loss/<term>` too.
 *
 * `rpt`: `reward`, `reward_std`, `frac_reward_zero_std`, `completions/mean_length`, `completions/min_length`,
 * `completions/max_length`, `completions/mean_thought_length`, `completions/clipped_ratio`, `completions/without_box`, `kl`,
 * `clip_ratio/low_mean|high_mean|region_mean`, `importance_ratio/mean|max`, `approx_kl`, `rpt/accuracy`,
 * `rpt/accuracy/easy|medium|hard`, `rpt/groups`, `rpt/groups_trained`, `rpt/tries`, `rpt/documents`.
 * `ntp`: `documents`. `sft`: `documents`, `traces`.
 *
 * Where the corpus leaves records out instead of stopping: `corpus/skipped/json|field|encoding|size|empty|tokenizer`,
 * counted since the run began.
 *
 * With an evaluation: `eval/<split>/prediction`, `eval/<split>/reasoning`, and the others of `evaluationMetrics`.
 */
export interface StepMetrics {
  /** Steps done, this one included. */
  step: number
  /** What was minimised, mean over the step's updates. */
  loss: number
  /** Global norm of the gradients before clipping. */
  grad_norm: number
  /** Of this step. */
  learning_rate: number
  /** Tokens through the network since the run began. */
  num_tokens: number
  /** FLOPs since the run began. */
  total_flops: number
  /** Seconds. */
  step_time: number
  [name: string]: number
}

/** What a trainer reports while it works. */
export type TrainEvent =
  | { kind: 'progress'; step: number; part: StepPart | 'evaluation' | 'checkpoint'; done: number; total: number }
  | { kind: 'samples'; step: number; samples: readonly Sample[] }
  | { kind: 'evaluation'; step: number; report: EvaluationReport }
  | { kind: 'checkpoint'; step: number; directory: string; best: boolean }

/** The part of a checkpoint that is not tensors: `trainer.json`. */
export interface TrainerState {
  /** Of the file itself. */
  format: 1
  /** Steps done. */
  step: number
  /** Of every draw. */
  seed: number
  /** Its name, settings and own state. */
  method: { name: string; settings: unknown; state: unknown }
  /** Which text, and the place in it. */
  corpus: { fingerprint: string; feed: unknown }
  /** SHA-256 of the tokenizer's rules. */
  tokenizer: string
  /** Its name. */
  reward: string
  /** Since the run began. */
  totals: { tokens: number; flops: number }
  /** The best evaluation so far, where the best checkpoint is kept. */
  best: { step: number; metric: string; value: number } | null
}
