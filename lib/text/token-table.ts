import { ForetokenError } from '../engine/errors.js'

/** How a vocabulary writes bytes as strings. */
export type ByteScheme = 'byte-level' | 'sentencepiece' | 'plain'

/** A step of `tokenizer.json` (normalizer, pre-tokenizer, decoder), as far as foretoken looks into it. */
export interface TokenizerStep {
  type: string
  decoders?: TokenizerStep[]
  normalizers?: TokenizerStep[]
  pretokenizers?: TokenizerStep[]
  pattern?: { String?: string; Regex?: string }
  content?: string
  [key: string]: unknown
}

/** A token beside the model's vocabulary: special tokens and words that are never split. */
export interface AddedTokenEntry {
  /** Its id. */
  id: number
  /** Its text. */
  content: string
  /** Whether it is a control token, never text. */
  special?: boolean
}

/** Lists the steps of a possibly nested sequence. */
export function flattenSteps(step: TokenizerStep | null | undefined): TokenizerStep[] {
  if (!step) return []
  const inner = step.decoders ?? step.normalizers ?? step.pretokenizers
  return step.type === 'Sequence' && inner ? inner.flatMap(flattenSteps) : [step]
}

/**
 * Reads from a `tokenizer.json` how its token strings stand for bytes.
 * Throws `INVALID_TOKENIZER` where the decoder cannot be inverted to bytes (WordPiece, CTC, word suffixes).
 */
export function detectByteScheme(json: {
  decoder?: TokenizerStep | null
  pre_tokenizer?: TokenizerStep | null
  model: { type?: string; byte_fallback?: boolean; end_of_word_suffix?: string | null }
}): { scheme: ByteScheme; byteFallback: boolean } {
  const decoders = flattenSteps(json.decoder)
  const types = new Set(decoders.map((step) => step.type))
  const byteFallback = types.has('ByteFallback') || json.model.byte_fallback === true
  const unsupported = decoders.find((step) => !reversibleDecoders.has(step.type))
  if (unsupported || json.model.type === 'WordPiece' || json.model.end_of_word_suffix) {
    const culprit = unsupported?.type ?? (json.model.type === 'WordPiece' ? 'WordPiece' : 'end_of_word_suffix')
    throw new ForetokenError(
      'INVALID_TOKENIZER',
      `tokenizer.json uses ${culprit}, which does not say which bytes a token stands for; ` +
        'use a byte-level BPE or SentencePiece-style tokenizer',
    )
  }
  if (types.has('ByteLevel') || flattenSteps(json.pre_tokenizer).some((step) => step.type === 'ByteLevel')) {
    return { scheme: 'byte-level', byteFallback: false }
  }
  const underline = decoders.some(
    (step) => step.type === 'Metaspace' || (step.type === 'Replace' && step.pattern?.String === '\u2581'),
  )
  return { scheme: underline ? 'sentencepiece' : 'plain', byteFallback }
}

const reversibleDecoders = new Set(['ByteLevel', 'Metaspace', 'Replace', 'ByteFallback', 'Fuse', 'Strip'])

/**
 * The bytes of every token of a vocabulary, exact also where a token ends inside a UTF-8 character.
 *
 * A SentencePiece `▁` is one space; the space that such tokenizers put before a text is a byte of its first token
 * here, and `Document` takes it away. Added and special tokens stand for their content. Ids without a token (padding
 * rows of the embedding) have no bytes. `Engine.setTokenBytes` takes the table as it is.
 */
export class TokenTable {
  private constructor(
    /** All bytes one after another. */
    readonly bytes: Uint8Array,
    /** V + 1 entries: token i is bytes[offsets[i] .. offsets[i + 1]). */
    readonly offsets: Uint32Array,
  ) {}

  /** Builds the table from token strings by id (holes allowed) and the added tokens. */
  static build(
    vocabulary: readonly (string | undefined)[],
    added: readonly AddedTokenEntry[],
    scheme: ByteScheme,
    byteFallback: boolean,
  ): TokenTable {
    const contents = new Map(added.map((token) => [token.id, token.content]))
    const size = added.reduce((most, token) => Math.max(most, token.id + 1), vocabulary.length)
    const offsets = new Uint32Array(size + 1)
    const parts: Uint8Array[] = []
    let total = 0
    for (let id = 0; id < size; ++id) {
      const content = contents.get(id)
      const token = vocabulary[id]
      let bytes: Uint8Array = empty
      if (content !== undefined) bytes = utf8.encode(content)
      else if (token !== undefined) bytes = bytesOfToken(token, scheme, byteFallback)
      parts.push(bytes)
      total += bytes.length
      offsets[id + 1] = total
    }
    const data = new Uint8Array(total)
    parts.forEach((part, id) => {
      data.set(part, offsets[id]!)
    })
    return new TokenTable(data, offsets)
  }

  /** V: the number of ids with an entry. */
  get size(): number {
    return this.offsets.length - 1
  }

  /** The bytes of one token; none for an id outside the vocabulary. */
  of(id: number): Uint8Array {
    return id >= 0 && id < this.size ? this.bytes.subarray(this.offsets[id]!, this.offsets[id + 1]!) : empty
  }

  /** The number of bytes of one token. */
  lengthOf(id: number): number {
    return id >= 0 && id < this.size ? this.offsets[id + 1]! - this.offsets[id]! : 0
  }

  /** The bytes of a run of tokens, one after another. */
  join(ids: ArrayLike<number>): Uint8Array {
    let total = 0
    for (let i = 0; i < ids.length; ++i) total += this.lengthOf(ids[i]!)
    const joined = new Uint8Array(total)
    let at = 0
    for (let i = 0; i < ids.length; ++i) {
      const bytes = this.of(ids[i]!)
      joined.set(bytes, at)
      at += bytes.length
    }
    return joined
  }
}

function bytesOfToken(token: string, scheme: ByteScheme, byteFallback: boolean): Uint8Array {
  if (byteFallback) {
    const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)
    if (byte) return Uint8Array.of(Number.parseInt(byte[1]!, 16))
  }
  if (scheme === 'plain') return utf8.encode(token)
  if (scheme === 'sentencepiece') return utf8.encode(token.replaceAll('\u2581', ' '))
  const bytes = new Uint8Array(token.length)
  let length = 0
  for (const character of token) {
    const byte = byteOfCharacter.get(character)
    // A character outside the alphabet can only come from a token that was added as plain text.
    if (byte === undefined) return utf8.encode(token)
    bytes[length++] = byte
  }
  return bytes.subarray(0, length)
}

/**
 * GPT-2's alphabet, by byte: printable Latin-1 bytes stand for themselves, the 68 others for U+0100 onwards in order.
 */
export const byteCharacters: readonly string[] = (() => {
  let next = 0x100
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
    return String.fromCodePoint(printable ? byte : next++)
  })
})()

const byteOfCharacter: ReadonlyMap<string, number> = new Map(byteCharacters.map((character, byte) => [character, byte]))

const utf8 = new TextEncoder()
const empty = new Uint8Array(0)
