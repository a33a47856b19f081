import { ForetokenError } from '../engine/errors.js'
import type { Prompt } from '../text/prompt.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { TextRecord } from './text-corpus.js'

/** A reasoning trace as tokens, and how much each counts in the loss. */
export interface Trace {
  /** Prompt, answer and end of text. */
  tokens: Int32Array
  /** 0 for what is not to be learned. The first token has 0: nothing precedes it. */
  weights: Float32Array
}

/** How a text becomes a trace. */
export interface TraceOptions {
  /** How the question is put; the same as in `rpt`. */
  prompt: Prompt
  /** What in the text stands between context and answer, and belongs to neither. Default `<think>`. */
  separator?: string
  /** The weight of the context's tokens. Default 0. */
  contextWeight?: number
  /** Appends the end-of-text token to the answer. Default true. */
  end?: boolean
}

/**
 * Makes a trace of a text such as `2+2=<think>two and two</think>\boxed{4}`: what stands before the separator is put
 * as the question that the prompt makes of it, just as in `rpt`, and what follows is the answer to be learned. Special
 * tokens are recognised in the answer. Throws `INVALID_DATA` for a text without the separator.
 */
export function makeTrace(tokenizer: Tokenizer, record: TextRecord, options: TraceOptions): Trace {
  const { prompt, separator = '<think>', contextWeight = 0, end = true } = options
  const at = record.text.indexOf(separator)
  if (at < 0) {
    throw new ForetokenError(
      'INVALID_DATA',
      `trace ${record.hash.slice(0, 12)} (${JSON.stringify(record.text.slice(0, 40))}…) has no ` +
        `${JSON.stringify(separator)} between context and answer`,
    )
  }
  const context = tokenizer.encode(record.text.slice(0, at))
  const answer = tokenizer.encode(record.text.slice(at + separator.length), { special: true, continues: true })
  const stop = end && tokenizer.eosId !== undefined ? [tokenizer.eosId] : []
  const tokens = Int32Array.from([...prompt.prefix, ...context, ...prompt.suffix, ...answer, ...stop])
  const weights = new Float32Array(tokens.length)
  const contextBegin = prompt.prefix.length
  const answerBegin = contextBegin + context.length + prompt.suffix.length
  weights.fill(contextWeight, contextBegin, contextBegin + context.length)
  weights.fill(1, answerBegin)
  if (weights.length > 0) weights[0] = 0
  return { tokens, weights }
}
