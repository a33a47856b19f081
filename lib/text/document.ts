import { createHash } from 'node:crypto'
import { ForetokenError } from '../engine/errors.js'
import type { Tokenizer } from './tokenizer.js'

/** SHA-256 of a document's UTF-8 bytes, as hex: its name everywhere (split, difficulty index, seeds). */
export function documentHash(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/**
 * A text tokenised once: token ids, the bytes they stand for and where each token begins among them.
 *
 * Contexts, truths and token boundaries are all cuts of these arrays; nothing is decoded and encoded again.
 */
export class Document {
  private constructor(
    /** Hash of the source text, followed by `@start` for a part of a document. */
    readonly id: string,
    /** T token ids. */
    readonly ids: Int32Array,
    /** T + 1 entries: token t is bytes[offsets[t] .. offsets[t + 1]). */
    readonly offsets: Uint32Array,
    /** The bytes of all tokens, one after another. */
    readonly bytes: Uint8Array,
  ) {}

  /**
   * Tokenises a text.
   *
   * Its bytes are those of the text itself, or of the normalised text where the tokenizer normalises (NFC). The space
   * that SentencePiece-style tokenizers put first is not part of them. `end` appends the end-of-text token, which has
   * no bytes. Throws `INVALID_DATA` where the tokens do not stand for the text (unknown characters, lost blanks).
   */
  static tokenize(tokenizer: Tokenizer, text: string, options: { id?: string; end?: boolean } = {}): Document {
    const ids = tokenizer.encode(text)
    const source = Buffer.from(text)
    let bytes = tokenizer.bytes.join(ids)
    let dropped = 0
    if (!source.equals(bytes)) {
      const normalized = Buffer.from(tokenizer.normalize(text))
      const start = tokenizer.putsSpaceFirst && bytes[0] === space ? 1 : 0
      if (start === 1 && source.equals(bytes.subarray(1))) dropped = 1
      else if (start === 1 && normalized.equals(bytes)) dropped = 1
      else if (!normalized.equals(bytes)) throw notReversible(text, source, bytes.subarray(start))
      bytes = bytes.subarray(dropped)
    }
    const ended = options.end === true
    if (ended && tokenizer.eosId === undefined) {
      throw new ForetokenError('INVALID_TOKENIZER', 'the tokenizer names no end-of-text token, so none can be appended')
    }
    const T = ids.length + (ended ? 1 : 0)
    const all = new Int32Array(T)
    all.set(ids)
    const offsets = new Uint32Array(T + 1)
    for (let t = 0; t < ids.length; ++t) {
      offsets[t + 1] = offsets[t]! + tokenizer.bytes.lengthOf(ids[t]!) - (t === 0 ? dropped : 0)
    }
    if (ended) {
      all[T - 1] = tokenizer.eosId!
      offsets[T] = offsets[T - 1]!
    }
    return new Document(options.id ?? documentHash(source), all, offsets, bytes)
  }

  /** T: the number of tokens. */
  get length(): number {
    return this.ids.length
  }

  /** The ids before position t, from `start` on: a view, not a copy. */
  context(t: number, start = 0): Int32Array {
    return this.ids.subarray(start, t)
  }

  /** The bytes of the true continuation: everything from token t on. */
  continuation(t: number): Uint8Array {
    return this.bytes.subarray(this.offsets[t]!)
  }

  /** The bytes of token t. */
  tokenBytes(t: number): Uint8Array {
    return this.bytes.subarray(this.offsets[t]!, this.offsets[t + 1]!)
  }

  /** Whether a token begins or the document ends at this byte. */
  isBoundary(byte: number): boolean {
    let low = 0
    let high = this.offsets.length - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.offsets[middle]! < byte) low = middle + 1
      else high = middle
    }
    return this.offsets[low] === byte
  }

  /** The part from token `start` to before `end` as a document of its own, sharing the arrays of this one. */
  slice(start: number, end: number = this.length): Document {
    if (start === 0 && end === this.length) return this
    const first = this.offsets[start]!
    const offsets = this.offsets.subarray(start, end + 1).map((offset) => offset - first)
    const bytes = this.bytes.subarray(first, this.offsets[end]!)
    return new Document(`${this.id}@${start}`, this.ids.subarray(start, end), offsets, bytes)
  }

  /**
   * Cuts a document into parts of at most `tokens` tokens, each repeating the last `overlap` tokens of the one before,
   * so that long documents fit a prompt and no position is without context. One that fits comes back whole.
   */
  windows(tokens: number, overlap = 0): Document[] {
    if (!(tokens > overlap && overlap >= 0)) {
      throw new ForetokenError('INVALID_ARGUMENT', `windows of ${tokens} tokens cannot overlap by ${overlap}`)
    }
    const parts: Document[] = []
    for (let start = 0; start === 0 || start + overlap < this.length; start += tokens - overlap) {
      parts.push(this.slice(start, Math.min(this.length, start + tokens)))
    }
    return parts
  }
}

function notReversible(text: string, source: Uint8Array, bytes: Uint8Array): ForetokenError {
  let at = 0
  while (at < source.length && source[at] === bytes[at]) ++at
  const before = Buffer.from(source.subarray(0, at)).toString('utf8').length
  const around = JSON.stringify(text.slice(Math.max(0, before - 10), before + 20))
  return new ForetokenError(
    'INVALID_DATA',
    `the tokens of a document do not stand for its bytes from byte ${at} on (near ${around}): the vocabulary lacks ` +
      'a character there or the tokenizer drops blanks; use a tokenizer with byte fallback or skip such documents',
  )
}

const space = 0x20
