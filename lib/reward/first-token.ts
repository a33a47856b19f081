import { ForetokenError } from '../engine/errors.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { Reward } from './reward.js'

/** The first token of a prediction that is tokenised on its own; undefined where there is none. */
export function firstTokenOf(tokenizer: Tokenizer, prediction: Uint8Array | null): number | undefined {
  if (prediction === null || prediction.length === 0) return undefined
  try {
    return tokenizer.encodeBytes(prediction)[0]
  } catch (error) {
    // The model can write bytes that its vocabulary cannot: no token, so never the right one.
    if (error instanceof ForetokenError && error.code === 'INVALID_DATA') return undefined
    throw error
  }
}

/** 1 where the first token of the prediction is the document's token, whatever follows it (RPT paper, appendix A). */
export const firstTokenReward: Reward = {
  name: 'first-token',
  evaluate: (contexts, { tokenizer }) =>
    contexts.map(({ prediction, document, position }) =>
      firstTokenOf(tokenizer, prediction) === document.ids[position] ? 1 : 0,
    ),
}
