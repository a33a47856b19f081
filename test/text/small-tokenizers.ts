import { Tokenizer } from '../../lib/text/tokenizer.js'

/** GPT-2's alphabet written out as its definition says, independently of lib/. */
export function byteAlphabet(): string[] {
  const printable = new Set<number>()
  for (const [first, last] of [
    ['!', '~'],
    ['\u00a1', '\u00ac'],
    ['\u00ae', '\u00ff'],
  ] as const) {
    for (let c = first.charCodeAt(0); c <= last.charCodeAt(0); ++c) printable.add(c)
  }
  let extra = 256
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable.has(byte) ? byte : extra++))
}

/**
 * A byte-level BPE: the 256 bytes, then each merge (two strings in the byte alphabet), then special tokens
 * `<s>`, `</s>` and the plain added tokens `<think>`, `</think>`.
 */
export function byteLevelTokenizer(
  merges: [string, string][] = [],
  options: { chatTemplate?: string } = {},
): Tokenizer {
  const vocab: Record<string, number> = {}
  for (const character of byteAlphabet()) vocab[character] = Object.keys(vocab).length
  for (const [left, right] of merges) vocab[left + right] = Object.keys(vocab).length
  const first = Object.keys(vocab).length
  const added = ['<s>', '</s>', '<think>', '</think>'].map((content, i) => ({
    id: first + i,
    content,
    special: i < 2,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  }))
  return Tokenizer.fromJson(
    {
      model: { type: 'BPE', vocab, merges },
      added_tokens: added,
      normalizer: null,
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      post_processor: null,
      decoder: { type: 'ByteLevel' },
    },
    { config: { bos_token: '<s>', eos_token: '</s>' }, ...options },
  )
}
