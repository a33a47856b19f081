import { ForetokenError } from '../engine/errors.js'
import type { Document } from '../text/document.js'
import { PhiloxStream, randomUse } from './philox.js'

/** Which positions of a document become questions. */
export interface PositionOptions {
  /**
   * `threshold`: those whose entropy is above `minEntropy` nats (default 0.5); `top-share`: the share of a document's
   * positions with the greatest entropy; `random`: any.
   */
  by: 'threshold' | 'top-share' | 'random'
  /** For `threshold`, in nats; default 0.5. */
  minEntropy?: number
  /** Positions above this entropy are left out: text that nothing can predict. Default none. */
  maxEntropy?: number
  /** For `top-share`, from 0 to 1. */
  share?: number
  /** A position needs so many tokens before it. Default 1. */
  minContext?: number
  /** And at most so many, so that the prompt fits. Default no limit. */
  maxContext?: number
  /** At most so many of a document, chosen at random among those that qualify. Default all. */
  maxPerDocument?: number
  /** The random choice depends on this, on the document and on the epoch alone. */
  seed: number
  /** The pass over the corpus, from 0; another one draws other positions. Default 0. */
  epoch?: number
}

/**
 * Chooses positions of a document: t is the index of the token to be predicted, with t tokens of context.
 *
 * `entropies` has one value per token (NaN for the first); not needed for `random`. Gives ascending positions. A token
 * without bytes (the end of the text) is never one. Throws `INVALID_ARGUMENT` for entropies of another length.
 */
export function selectPositions(
  document: Document,
  entropies: ArrayLike<number> | undefined,
  options: PositionOptions,
): Int32Array {
  if (options.by !== 'random' && entropies?.length !== document.length) {
    throw new ForetokenError(
      'INVALID_ARGUMENT',
      `document ${document.id.slice(0, 12)} has ${document.length} tokens but ${entropies?.length ?? 0} entropies; ` +
        'the difficulty index was made with another tokenizer or another text',
    )
  }
  const { minContext = 1, maxContext = document.length, maxPerDocument = document.length } = options
  let positions: number[] = []
  for (let t = Math.max(0, minContext); t < document.length && t <= maxContext; ++t) {
    if (document.offsets[t + 1]! > document.offsets[t]!) positions.push(t)
  }
  if (options.by !== 'random') {
    const entropy = (t: number) => entropies![t]!
    const { maxEntropy = Number.POSITIVE_INFINITY } = options
    positions = positions.filter((t) => entropy(t) <= maxEntropy)
    if (options.by === 'threshold') {
      const { minEntropy = 0.5 } = options
      positions = positions.filter((t) => entropy(t) > minEntropy)
    } else {
      const count = Math.ceil(positions.length * (options.share ?? 0))
      // Of equal entropies the earlier position comes first, so that the choice is defined.
      positions.sort((a, b) => entropy(b) - entropy(a) || a - b)
      positions = positions.slice(0, count)
    }
  }
  if (positions.length > maxPerDocument) {
    const key = Number.parseInt(document.id.slice(0, 8), 16)
    const start = Number(document.id.split('@')[1] ?? 0)
    const random = new PhiloxStream(options.seed, randomUse.positions, key, (options.epoch ?? 0) * 2 ** 20 + start)
    positions.sort((a, b) => a - b)
    positions = random.shuffle(positions).slice(0, maxPerDocument)
  }
  return Int32Array.from(positions).sort()
}

/** The evaluation splits of the paper: nested, each the positions above its entropy in nats. */
export const difficultySplits = { easy: 0.5, medium: 1, hard: 1.5 } as const

/** A split by name. */
export type DifficultySplit = keyof typeof difficultySplits
