/** Soft punishment of answers that come near the token limit (DAPO, arXiv 2503.14476, equation 13). */
export interface OverlongShaping {
  /** The last so many tokens before the limit, over which the punishment grows from 0 to 1. */
  buffer: number
  /** What the punishment is multiplied by. Default 1. */
  factor?: number
}

/** What is added to the reward of an answer of `length` tokens under a limit of `maxTokens`: from 0 down to -factor. */
export function overlongPunishment({ buffer, factor = 1 }: OverlongShaping, length: number, maxTokens: number): number {
  const free = maxTokens - buffer
  if (length <= free) return 0
  return -factor * Math.min(1, (length - free) / buffer)
}
