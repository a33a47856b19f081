import type { Engine } from '../engine/engine.js'
import type { LossTerm } from '../engine/loss-terms.js'
import type { TokenForest } from '../engine/token-forest.js'
import type { Reward } from '../reward/reward.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { DocumentFeed } from './document-feed.js'

/** The parts a step's time is reported in. */
export type StepPart = 'text' | 'score' | 'rollouts' | 'reward' | 'update'

/** The verbs of the engine that methods use. Tokens and FLOPs of each call are counted by the trainer. */
export type MethodEngine = Pick<Engine, 'score' | 'sample' | 'config'>

/** One optimizer update: loss terms over a forest. */
export interface Update {
  /** What the terms are about. */
  forest: TokenForest
  /** By the name under which they are reported; entropy and clipping are those of the first. */
  terms: Record<string, LossTerm>
  /** The temperature of the rollouts the terms are about. Default 1. */
  temperature?: number
}

/** One rollout for people to read. Texts are decoded with U+FFFD for bytes that are not UTF-8. */
export interface Sample {
  /** The end of the document's own text before the position. */
  context: string
  /** The whole prompt, as text. */
  prompt: string
  /** The answer up to the end of the thought. */
  thought: string
  /** What is in the box; null where there is none. */
  prediction: string | null
  /** The beginning of the true continuation. */
  truth: string
  /** What the run's reward gave. */
  reward: number
  /** Entropy in nats of the position, where known. */
  entropy: number | null
  /** Number of tokens of the answer. */
  length: number
  /** Why the answer ended: a stop token, a stop text, or the limit of tokens. */
  stop: 'token' | 'text' | 'length'
  /** The document's id. */
  document: string
  /** How many of its tokens stand before the question. */
  position: number
}

/** What a method has collected for one step. */
export interface StepPlan {
  /** Done one after another; without any, the step changes nothing. */
  updates: Update[]
  /** Numbers to report, by their final names. */
  metrics: Record<string, number>
  /** Answers for people to read. */
  samples?: Sample[]
}

/** What a method works with in one step. */
export interface StepTools {
  /** Steps done before this one. */
  readonly step: number
  /** Scores and samples; gradients and updates are the trainer's. */
  readonly engine: MethodEngine
  /** The tokenizer of the model. */
  readonly tokenizer: Tokenizer
  /** The training documents. */
  readonly documents: DocumentFeed
  /** Judges answers. */
  readonly reward: Reward
  /** The run's seed: every draw depends on it, on the step and on what the draw is for. */
  readonly seed: number
  /** Runs work and adds its duration to a part of the step. */
  time<T>(part: StepPart, work: () => T | Promise<T>): Promise<T>
  /** Says how far a long part is. */
  progress(part: StepPart, done: number, total: number): void
}

/**
 * What is learned from text, and how: everything of a step up to the gradients.
 *
 * A new method is one object with this shape. It keeps no state of its own beyond what `state` gives and `restore`
 * takes; whatever is random derives from `tools.seed` and `tools.step`.
 */
export interface Method {
  /** Its name in the config, the report and checkpoints. */
  readonly name: string
  /** Everything that decides what the method does, as JSON: a resumed run must have the same. */
  readonly settings: unknown
  /** Whether updates need a frozen copy of the first weights. */
  readonly needsReference?: boolean
  /** How it wants documents: in parts of at most so many tokens (default whole), with the end-of-text token or not. */
  documents?(tokenizer: Tokenizer): { maxTokens?: number; endOfText?: boolean }
  /** Collects one step. Undefined: there is no text left. */
  collect(tools: StepTools): Promise<StepPlan | undefined>
  /** The method's own state, as JSON. */
  state?(): unknown
  /** Takes what `state` gave, before the first `collect` of a resumed run. */
  restore?(state: unknown): Promise<void> | void
}
