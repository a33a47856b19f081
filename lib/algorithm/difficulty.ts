import type { DifficultyIndex } from '../corpus/difficulty-index.js'
import type { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'
import { TokenForest } from '../engine/token-forest.js'
import type { Document } from '../text/document.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** What a model without a thought makes of a text: one value per token, NaN (or -1) where nothing precedes it. */
export interface PlainScores {
  /** Entropy in nats of the k most likely tokens, renormalised. */
  entropy: Float32Array
  /** (T) log-prob of each token given the text before it, in nats; NaN for the first. */
  logprob: Float32Array
  /** The most likely token; only when asked for. */
  argmax: Int32Array | undefined
}

/**
 * Reads texts without any question, as in next-token prediction, all in one call; the text's first token (`<s>`) goes
 * before each where the tokenizer has one. The entropy is the difficulty of each position (of the paper: top 16).
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

/**
 * The entropies of a document, or of a part of one, from an index that was made once.
 * Throws `DATA_CHANGED` for a document that is not in the index.
 */
export async function indexedEntropies(index: Pick<DifficultyIndex, 'get'>, document: Document): Promise<Float32Array> {
  const [hash, start = '0'] = document.id.split('@') as [string, string?]
  const entropies = await index.get(hash)
  if (!entropies) {
    throw new ForetokenError(
      'DATA_CHANGED',
      `document ${hash.slice(0, 12)} is not in the difficulty index; run the filter again on this corpus`,
    )
  }
  return entropies.subarray(Number(start), Number(start) + document.length)
}
