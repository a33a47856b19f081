import { byteCharacters } from './token-table.js'
import { writeTokenizerFiles } from './tokenizer-files.js'

/** Two tokens, by id, that are joined to a new one. */
export type Merge = readonly [left: number, right: number]

/** The last tokens of a new tokenizer: the marks of an answer, and what ends a text. */
export const tokenizerMarks = ['<think>', '</think>', '\\boxed{', '<|endoftext|>'] as const

/**
 * Learns byte-pair merges (arXiv 1508.07909) from texts: again and again the two neighbours that occur together most
 * often become one token, within GPT-2's words. Merge i makes token 256 + i. Of pairs that are equally frequent the
 * lower ids come first, so that the result is defined. Fewer than `count` where the texts have no pairs left.
 *
 * Memory: the different words of the texts.
 */
export async function learnMerges(
  texts: Iterable<string> | AsyncIterable<string>,
  count: number,
): Promise<readonly Merge[]> {
  const frequencies = new Map<string, number>()
  for await (const text of texts)
    for (const [word] of text.matchAll(words)) frequencies.set(word, (frequencies.get(word) ?? 0) + 1)
  const learner = new PairCounts(frequencies)
  const merges: Merge[] = []
  while (merges.length < count) {
    const best = learner.mostFrequent()
    if (best === undefined) break
    learner.merge(best, 256 + merges.length)
    merges.push(best)
  }
  return merges
}

/**
 * Writes a tokenizer for a model that is trained from nothing: token i below 256 is byte i, then a token per merge, then
 * `tokenizerMarks`, so V = 260 + merges and the last id ends a text. Without merges every byte is a token. It fits every
 * text. The files are tokenizer.json and tokenizer_config.json, which transformers reads too; the folder is made.
 */
export async function writeTokenizer(folder: string, merges: readonly Merge[] = []): Promise<void> {
  const tokens = [...byteCharacters]
  for (const [left, right] of merges) tokens.push(tokens[left]! + tokens[right]!)
  await writeTokenizerFiles(folder, {
    tokens,
    merges: merges.map(([left, right]) => [tokens[left]!, tokens[right]!]),
    marks: tokenizerMarks,
    endOfText: tokenizerMarks.at(-1)!,
    words: true,
  })
}

/** GPT-2's words, which a ByteLevel pre-tokenizer splits texts into. */
const words = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu

/** How often neighbours occur together in a list of words, kept up to date while they are merged. */
class PairCounts {
  readonly #words: { tokens: number[]; frequency: number }[] = []
  readonly #counts = new Map<number, number>()
  /** By pair, the words that have had it. */
  readonly #places = new Map<number, Set<number>>()

  constructor(frequencies: ReadonlyMap<string, number>) {
    for (const [word, frequency] of frequencies) this.#words.push({ tokens: [...Buffer.from(word)], frequency })
    for (const index of this.#words.keys()) this.#add(index, 1)
  }

  mostFrequent(): Merge | undefined {
    let best: number | undefined
    let most = 0
    for (const [pair, count] of this.#counts)
      if (count > most || (count === most && count > 0 && pair < best!)) [best, most] = [pair, count]
    return best === undefined ? undefined : [Math.floor(best / base), best % base]
  }

  merge([left, right]: Merge, joined: number): void {
    for (const index of this.#places.get(left * base + right)!) {
      this.#add(index, -1)
      const { tokens } = this.#words[index]!
      let length = 0
      for (let i = 0; i < tokens.length; ++i) {
        const together = tokens[i] === left && tokens[i + 1] === right
        tokens[length++] = together ? joined : tokens[i]!
        if (together) ++i
      }
      tokens.length = length
      this.#add(index, 1)
    }
  }

  /** Counts the pairs of a word, or takes them away. */
  #add(index: number, sign: 1 | -1): void {
    const { tokens, frequency } = this.#words[index]!
    for (let i = 0; i + 1 < tokens.length; ++i) {
      const pair = tokens[i]! * base + tokens[i + 1]!
      const count = (this.#counts.get(pair) ?? 0) + sign * frequency
      if (count > 0) this.#counts.set(pair, count)
      else this.#counts.delete(pair)
      if (sign < 0) continue
      const places = this.#places.get(pair)
      if (places) places.add(index)
      else this.#places.set(pair, new Set([index]))
    }
  }
}

/** Above every token id, so that a pair of them is one number. */
const base = 2 ** 24
