import { ForetokenError } from '../engine/errors.js'
import type { Document } from '../text/document.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { extractBox } from './extract-box.js'
import { thoughtLength } from './thought-length.js'

/** One answer to be judged. */
export interface RewardContext {
  /** The text the question is about. */
  readonly document: Document
  /** t: the question is which bytes follow the first t tokens. */
  readonly position: number
  /** The bytes that follow, up to the end of the document. */
  readonly truth: Uint8Array
  /** Ids of the whole prompt. */
  readonly prompt: Int32Array
  /** Ids of the answer: thought, prediction, and the stop token where there is one. */
  readonly response: Int32Array
  /** The bytes of the answer. */
  readonly responseBytes: Uint8Array
  /** The bytes inside the last box after the thought; null where there is none or the answer was cut off. */
  readonly prediction: Uint8Array | null
  /** Tokens of the answer before `</think>`; all of them where the thought does not end. */
  readonly thoughtLength: number
  /** Whether the answer ran into the token limit. */
  readonly truncated: boolean
  /** Answers with the same number answer the same question. */
  readonly group: number
}

/** A request for log-probs: those of `tokens`, one by one, after `context`. */
export interface ScoreRequest {
  /** Ids that stand before; at least one. */
  context: Int32Array
  /** Ids whose log-probs are wanted. */
  tokens: Int32Array
  /** Which weights answer. Default current. */
  weights?: 'current' | 'reference' | 'average'
}

/** What a reward may use beside the answers. */
export interface RewardTools {
  /** The tokenizer of the model. */
  readonly tokenizer: Tokenizer
  /** Log-probs in nats under the model, for each request those of its tokens; all requests run as one batch. */
  score(requests: readonly ScoreRequest[]): Promise<readonly ArrayLike<number>[]>
}

/** A reward over a batch of answers; gives one finite number for each, in order. */
export interface Reward {
  /** Its name in messages, manifests and the report. */
  readonly name: string
  /** The copy of the weights that its requests ask for; a trainer sees to it. */
  readonly needs?: 'reference' | 'average'
  /** Judges all answers of a batch at once; rejecting ends the run. */
  evaluate(
    contexts: readonly RewardContext[],
    tools: RewardTools,
  ): ArrayLike<number> | readonly number[] | Promise<ArrayLike<number> | readonly number[]>
}

/** A reward of one answer at a time. */
export type RewardFunction = (context: RewardContext, tools: RewardTools) => number | Promise<number>

/** Makes a reward of a function of one answer; all answers of a batch are asked at once. */
export function rewardFromFunction(evaluate: RewardFunction, name: string = evaluate.name || 'custom'): Reward {
  return { name, evaluate: (contexts, tools) => Promise.all(contexts.map((context) => evaluate(context, tools))) }
}

/** Prepares one answer for judgement. `stop` is why sampling stopped. */
export function makeRewardContext(answer: {
  tokenizer: Tokenizer
  document: Document
  position: number
  prompt: Int32Array
  response: Int32Array
  stop: 'token' | 'text' | 'length'
  group: number
}): RewardContext {
  const { tokenizer, document, position, prompt, response, group } = answer
  const responseBytes = tokenizer.bytes.join(response)
  const truncated = answer.stop === 'length'
  return {
    document,
    position,
    truth: document.continuation(position),
    prompt,
    response,
    responseBytes,
    prediction: truncated ? null : extractBox(responseBytes),
    thoughtLength: thoughtLength(tokenizer, response, responseBytes),
    truncated,
    group,
  }
}

/**
 * Runs a reward over a batch and checks what it gives.
 * Throws `INVALID_ARGUMENT` when the number of rewards is wrong or one is not finite.
 */
export async function evaluateReward(
  reward: Reward,
  contexts: readonly RewardContext[],
  tools: RewardTools,
): Promise<Float64Array> {
  const values = await reward.evaluate(contexts, tools)
  if (values.length !== contexts.length) {
    throw new ForetokenError(
      'INVALID_ARGUMENT',
      `reward '${reward.name}' gave ${values.length} values for ${contexts.length} answers; it must give one for each`,
    )
  }
  const rewards = Float64Array.from(values)
  const bad = rewards.findIndex((value) => !Number.isFinite(value))
  if (bad >= 0) {
    const { document, position } = contexts[bad]!
    throw new ForetokenError(
      'INVALID_ARGUMENT',
      `reward '${reward.name}' gave ${String(values[bad])} for position ${position} of document ` +
        `${document.id.slice(0, 12)}; it must give a finite number`,
    )
  }
  return rewards
}
