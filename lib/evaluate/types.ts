import type { DifficultySplit } from '../corpus/positions.js'
import type { Document } from '../text/document.js'
import type { PromptOptions } from '../text/prompt.js'

/** One question of an evaluation: a position, and how hard the proxy found it. */
export interface EvaluationTarget {
  /** The text that the question is about. */
  document: Document
  /** t: how many of its tokens stand before the question. */
  position: number
  /** Top-16 entropy of the proxy, in nats. */
  entropy: number
}

/** How models are evaluated. */
export interface EvaluationOptions {
  /** How the question is put; give the one of the training. */
  prompt?: PromptOptions
  /** Answers per position; default 1. */
  samples?: number
  /** Default 0.8; 0 is greedy, and then one answer is enough. */
  temperature?: number
  /** Default 8192. */
  maxTokens?: number
  /** Default 0. */
  seed?: number
  /** Tokens that end an answer; default those of the tokenizer. */
  stopTokens?: readonly number[]
  /** Texts that end an answer; give those of the training. */
  stopTexts?: readonly string[]
  /** Tokens without a chance; give those of the training. */
  bannedTokens?: readonly number[]
  /** Asks a second time with these tokens forbidden, such as the one a brief guess begins with. */
  forced?: { bannedTokens: readonly number[] }
  /** Leave reasoning out: only next-token prediction, which is cheap. */
  predictionOnly?: boolean
  /** Answers to keep for people to read. Default 3. */
  keepSamples?: number
  /** Aborting rejects with the signal's reason. */
  signal?: AbortSignal
  /** Told how many of the questions are answered. */
  onProgress?: (done: number, total: number) => void
}

/** Next-token reasoning over the positions of a split. */
export interface ReasoningResult {
  /** Share of answers that are right, by prefix match. */
  accuracy: number
  /** Of that mean, over positions. */
  standardError: number
  /** Mean tokens of an answer. */
  length: number
  /** Mean tokens of its thought. */
  thoughtLength: number
  /** Share of answers without a complete box. */
  withoutBox: number
  /** Share of answers that ran into the token limit. */
  truncated: number
}

/** All positions above a split's entropy. */
export interface SplitResult {
  /** How many questions are above the split's entropy. */
  positions: number
  /** Accuracy of plain next-token prediction (argmax) and its standard error. */
  prediction: number
  /** Of `prediction`. */
  predictionStandardError: number
  /** Absent with `predictionOnly`. */
  reasoning?: ReasoningResult
  /** With `forced`. */
  forced?: ReasoningResult
}

/** One answer of an evaluation, for people to read. */
export interface EvaluationSample {
  /** The document's id. */
  document: string
  /** How many of its tokens stand before the question. */
  position: number
  /** Of the position, in nats. */
  entropy: number
  /** The end of the text before the position. */
  context: string
  /** The answer up to the end of the thought. */
  thought: string
  /** What is in the box; null where there is none. */
  prediction: string | null
  /** The beginning of the true continuation. */
  truth: string
  /** By prefix match. */
  right: boolean
}

/** What an evaluation found. */
export interface EvaluationReport {
  /** By name: easy, medium, hard. */
  splits: Record<DifficultySplit, SplitResult>
  /** Tokens through the network and their FLOPs (2 per parameter and token). */
  tokens: number
  /** FLOPs of these tokens. */
  flops: number
  /** How long it took. */
  seconds: number
  /** Answers for people to read. */
  samples: EvaluationSample[]
}
