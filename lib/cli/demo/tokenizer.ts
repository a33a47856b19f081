import { problemKinds, stepsTitle } from './problems.js'

/** The thought of an answer that was not worked out. */
export const guessMark = '?'

const endOfText = '<|endoftext|>'
const characters = [...`0123456789abcde+-*~=. }${guessMark}`]

/**
 * The demo's tokenizer as files of a folder: single characters, each title as one token, and the marks of an answer.
 * transformers reads them too.
 */
export function tokenizerFiles(): Record<string, unknown> {
  const vocab: Record<string, number> = {}
  // A byte-level vocabulary writes a space as Ġ.
  for (const character of characters) vocab[character === ' ' ? 'Ġ' : character] = Object.keys(vocab).length
  const added = [...problemKinds.map(({ title }) => title), stepsTitle, '<think>', '</think>', '\\boxed{', endOfText]
  return {
    'tokenizer.json': {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: added.map((content, i) => ({
        id: characters.length + i,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: content === endOfText,
      })),
      normalizer: null,
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      post_processor: null,
      decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
      model: {
        type: 'BPE',
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        vocab,
        merges: [],
      },
    },
    'tokenizer_config.json': {
      tokenizer_class: 'PreTrainedTokenizerFast',
      eos_token: endOfText,
      pad_token: endOfText,
      clean_up_tokenization_spaces: false,
    },
  }
}
