import type { Document } from '../text/document.js'
import type { Reward } from './reward.js'

/**
 * Whether a prediction is right (RPT paper, equation 3): its bytes are the first bytes of the true continuation and
 * end where one of the document's own tokens ends. Nothing is trimmed; an empty prediction is not right.
 */
export function prefixMatch(prediction: Uint8Array | null, document: Document, position: number): boolean {
  if (prediction === null || prediction.length === 0) return false
  const start = document.offsets[position]!
  const end = start + prediction.length
  if (end > document.bytes.length || !document.isBoundary(end)) return false
  for (let i = 0; i < prediction.length; ++i) {
    if (prediction[i] !== document.bytes[start + i]) return false
  }
  return true
}

/** 1 for a right prediction, else 0. */
export const prefixMatchReward: Reward = {
  name: 'prefix-match',
  evaluate: (contexts) =>
    contexts.map(({ prediction, document, position }) => (prefixMatch(prediction, document, position) ? 1 : 0)),
}
