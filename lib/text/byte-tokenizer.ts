import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { byteCharacters } from './token-table.js'

/** The tokens of a byte tokenizer beside the 256 bytes, from id 256 on: the marks of an answer and the end of a text. */
export const byteTokenizerMarks = ['<think>', '</think>', '\\boxed{', '<|endoftext|>'] as const

/**
 * Writes a tokenizer whose tokens are the 256 bytes, for models that are trained from nothing: it fits every text and
 * needs no training of its own. V = 260: id i below 256 is byte i, then `byteTokenizerMarks`; the last one, 259, ends a
 * text. The files are tokenizer.json and tokenizer_config.json, which transformers reads too; the folder is made.
 */
export async function writeByteTokenizer(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  const endOfText = byteTokenizerMarks.at(-1)!
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: byteTokenizerMarks.map((content, i) => ({
      id: byteCharacters.length + i,
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
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(byteCharacters.map((character, byte) => [character, byte])),
      merges: [],
    },
  }
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    eos_token: endOfText,
    pad_token: endOfText,
    clean_up_tokenization_spaces: false,
  }
  await writeFile(join(folder, 'tokenizer.json'), `${JSON.stringify(tokenizer)}\n`)
  await writeFile(join(folder, 'tokenizer_config.json'), `${JSON.stringify(config)}\n`)
}
