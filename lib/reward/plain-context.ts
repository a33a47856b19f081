import type { Tokenizer } from '../text/tokenizer.js'
import type { RewardContext } from './reward.js'

/** The ids of the text before a position as the model reads it without any question: its first token, then the text. */
export function plainContext({ document, position }: RewardContext, tokenizer: Tokenizer): Int32Array {
  const text = document.context(position)
  return tokenizer.addsBos ? Int32Array.from([tokenizer.bosId!, ...text]) : text
}
