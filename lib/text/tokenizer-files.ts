import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** What a byte-level tokenizer consists of. */
export interface ByteLevelTokenizer {
  /** Tokens in the order of their ids, written in the characters of byte-level vocabularies. */
  tokens: readonly string[]
  /** Pairs of tokens that are joined, in order. */
  merges?: readonly (readonly [left: string, right: string])[]
  /** Texts that are a token each and come after `tokens`. */
  marks: readonly string[]
  /** The mark that ends a text. */
  endOfText: string
  /** Whether texts are split into GPT-2's words first. */
  words: boolean
}

/** Writes tokenizer.json and tokenizer_config.json, which transformers reads too; the folder is made. */
export async function writeTokenizerFiles(folder: string, parts: ByteLevelTokenizer): Promise<void> {
  const { tokens, merges = [], marks, endOfText, words } = parts
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: marks.map((content, i) => ({
      id: tokens.length + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: content === endOfText,
    })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: words },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: words },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  }
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    eos_token: endOfText,
    pad_token: endOfText,
    clean_up_tokenization_spaces: false,
  }
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, 'tokenizer.json'), `${JSON.stringify(tokenizer)}\n`)
  await writeFile(join(folder, 'tokenizer_config.json'), `${JSON.stringify(config)}\n`)
}
