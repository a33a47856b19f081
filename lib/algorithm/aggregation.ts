import { ForetokenError } from '../engine/errors.js'

/**
 * How the loss of a batch is put together from its tokens: the mean over all tokens (`token-mean`, DAPO), the mean over
 * answers of their means (`sequence-mean`, GRPO), or the sum over answers times the token limit (`constant`, Dr. GRPO,
 * arXiv 2503.20783).
 */
export type Aggregation = 'token-mean' | 'sequence-mean' | 'constant'

/**
 * What the summed loss of a batch is divided by, given the lengths of all its answers, those without gradient included:
 * so the loss does not depend on which groups were skipped or how the batch was cut.
 */
export function lossNormaliser(aggregation: Aggregation, lengths: ArrayLike<number>, maxTokens: number): number {
  switch (aggregation) {
    case 'token-mean': {
      let total = 0
      for (let i = 0; i < lengths.length; ++i) total += lengths[i]!
      return total
    }
    case 'sequence-mean':
      return lengths.length
    case 'constant':
      return lengths.length * maxTokens
    default:
      throw new ForetokenError('INVALID_CONFIG', `aggregation '${String(aggregation)}' is not known`)
  }
}
