import type { ByteLevelTokenizer } from '../../text/tokenizer-files.js'
import { problemKinds, stepsTitle } from './problems.js'

/** The thought of an answer that was not worked out. */
export const guessMark = '?'

const endOfText = '<|endoftext|>'

/** The demo's tokenizer: single characters, each title as one token, and the marks of an answer. */
export const demoTokenizer: ByteLevelTokenizer = {
  // A byte-level vocabulary writes a space as Ġ.
  tokens: [...`0123456789abcde+-*~=.Ġ}${guessMark}`],
  marks: [...problemKinds.map(({ title }) => title), stepsTitle, '<think>', '</think>', '\\boxed{', endOfText],
  endOfText,
  words: false,
}
