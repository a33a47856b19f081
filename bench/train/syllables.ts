import { PhiloxStream } from '../../lib/corpus/philox.js'
import { Tokenizer } from '../../lib/text/tokenizer.js'

const syllables = [...'bcdfghjklmnprstvz'].flatMap((consonant) => [...'aeiou'].map((vowel) => consonant + vowel))

/** A byte-level BPE of 7,655 tokens in which a space and two syllables are one, as usual words are in larger ones. */
export function syllableTokenizer(): Tokenizer {
  const merges: [string, string][] = [
    ...syllables.map(([consonant, vowel]): [string, string] => [consonant!, vowel!]),
    ...syllables.map((syllable): [string, string] => ['Ġ', syllable]),
    ...syllables.flatMap((first) => syllables.map((second): [string, string] => [`Ġ${first}`, second])),
  ]
  const names = [...byteNames(), ...merges.map((pair) => pair.join(''))]
  const added = ['<s>', '</s>', '<think>', '</think>'].map((content, i) => ({
    ...{ id: names.length + i, content, special: i < 2 },
    ...{ single_word: false, lstrip: false, rstrip: false, normalized: false },
  }))
  return Tokenizer.fromJson(
    {
      model: { type: 'BPE', vocab: Object.fromEntries(names.map((name, id) => [name, id])), merges },
      added_tokens: added,
      normalizer: null,
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      post_processor: null,
      decoder: { type: 'ByteLevel' },
    },
    { config: { bos_token: '<s>', eos_token: '</s>' } },
  )
}

/** A text of so many tokens of that vocabulary. */
export function syllableText(tokens: number, seed: number): string {
  const random = new PhiloxStream(seed, 0, 0)
  const syllable = () => syllables[random.below(syllables.length)]!
  return Array.from({ length: tokens }, () => ` ${syllable()}${syllable()}`).join('')
}

/** How byte-level vocabularies write the 256 bytes: printable ones as they are, others as U+0100 and on (GPT-2). */
function byteNames(): string[] {
  const printable = (byte: number) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte !== 0xad)
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++))
}
