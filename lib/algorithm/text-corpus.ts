import { createHash } from 'node:crypto'
import { documentHash } from '../text/document.js'

/** A text and its name. */
export interface TextRecord {
  /** The whole text. */
  text: string
  /** SHA-256 of its UTF-8 bytes, as hex. */
  hash: string
}

/** Texts one after another. */
export interface TextStream {
  /** The next text. */
  next(): Promise<IteratorResult<TextRecord, undefined>>
  /** Where the stream stands, as JSON; it must have an `epoch`. */
  cursor(): { epoch: number }
  /** Records left out so far, by what was wrong with them. */
  readonly skipped?: Readonly<Record<string, number>>
  /** Closes what is open. */
  return?(): Promise<unknown>
}

/** Where texts come from: `Corpus` is one, and so is anything that can stream from a cursor. */
export interface TextCorpus {
  /** Changes with the data and its order. */
  readonly fingerprint: string
  /** Streams texts, from the beginning or from a cursor. */
  stream(options: {
    part?: 'train' | 'held-out' | 'all'
    epochs?: number
    /** What `cursor()` of an earlier stream gave; nobody but the corpus looks into it. */
    cursor?: never
    ignoreChanges?: boolean
  }): TextStream
}

/** Texts in memory as a corpus, in the order given, all of them for training. */
export function textsCorpus(texts: readonly string[]): TextCorpus {
  const hash = createHash('sha256')
  for (const text of texts) hash.update(`${text}\0`)
  return {
    fingerprint: hash.digest('hex'),
    stream({ epochs = 1, cursor }: { epochs?: number; cursor?: unknown }) {
      let { epoch, next } = (cursor as { epoch: number; next: number } | undefined) ?? { epoch: 0, next: 0 }
      return {
        async next() {
          if (next === texts.length) {
            next = 0
            ++epoch
          }
          if (epoch >= epochs || texts.length === 0) return { done: true, value: undefined }
          const text = texts[next++]!
          return { done: false, value: { text, hash: documentHash(text) } }
        },
        cursor: () => ({ epoch, next }),
      }
    },
  }
}
