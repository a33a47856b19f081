import type { Engine } from '../engine/engine.js'
import { TokenForest } from '../engine/token-forest.js'
import type { Document } from '../text/document.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** What a model without a thought makes of a text: one value per token, NaN (or -1) where nothing precedes it. */
export interface PlainScores {
  /** Entropy in nats of the k most likely tokens, renormalised. */
  entropy: Float32Array
  logprob: Float32Array
  /** The most likely token; only when asked for. */
  argmax: Int32Array | undefined
}

/**
 * Reads texts without any question, as in next-token prediction, all in one call; the text's first token (`<s>`) goes
 * before each where the tokenizer has one. The entropy is the difficulty of each position (METHOD: top 16).
 */
export async function scorePlain(
  engine: Pick<Engine, 'score'>,
  tokenizer: Tokenizer,
  documents: readonly Document[],
  options: { topK?: number; argmax?: boolean; signal?: AbortSignal | undefined } = {},
): Promise<PlainScores[]> {
  if (documents.length === 0) return []
  const forest = new TokenForest()
  const segments = documents.map(({ ids }) => forest.add(addPlainRoot(forest, tokenizer), ids))
  const scores = await engine.score(forest, {
    topEntropy: options.topK ?? 16,
    argmax: options.argmax ?? false,
    signal: options.signal,
  })
  return segments.map((segment) => ({
    entropy: forest.slice(segment, scores.topEntropy!),
    logprob: forest.slice(segment, scores.logprobs),
    argmax: scores.argmax && forest.slice(segment, scores.argmax),
  }))
}

/** The segment that begins a plain text, or null where the tokenizer puts nothing before it. */
export function addPlainRoot(forest: TokenForest, tokenizer: Tokenizer): number | null {
  return tokenizer.addsBos ? forest.add(null, [tokenizer.bosId!]) : null
}
