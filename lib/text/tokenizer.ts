import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Tokenizer as Backend } from '@huggingface/tokenizers'
import { ForetokenError } from '../engine/errors.js'
import { ChatTemplate, findChatTemplate } from './chat-template.js'
import {
  type AddedTokenEntry,
  type ByteScheme,
  detectByteScheme,
  flattenSteps,
  type TokenizerStep,
  TokenTable,
} from './token-table.js'
import { decodeUtf8 } from './utf8.js'

/** How a text is read. */
export interface EncodeOptions {
  /**
   * Recognises special tokens such as `<|im_end|>` in the text. Off by default: raw text must not be able to write
   * control tokens. Added tokens that are not marked special are always recognised, as in transformers.
   */
  special?: boolean
  /** Adds what the tokenizer's post-processor adds, such as a first `<s>`. Off by default. */
  template?: boolean
  /** The text goes on after other tokens: SentencePiece-style tokenizers put no space before it. */
  continues?: boolean
}

interface TokenizerJson {
  model: { type?: string; byte_fallback?: boolean; end_of_word_suffix?: string | null; merges?: unknown[] }
  added_tokens: AddedTokenEntry[]
  normalizer: TokenizerStep | null
  pre_tokenizer: TokenizerStep | null
  post_processor: TokenizerStep | null
  decoder: TokenizerStep | null
}

/**
 * A model's tokenizer, `tokenizer.json` as Hugging Face writes it, together with the bytes of every token.
 *
 * Encoding is that of @huggingface/tokenizers; decoding goes through the token table, so it is exact on bytes.
 */
export class Tokenizer {
  /** The bytes of every token. */
  readonly bytes: TokenTable
  /** How token strings stand for bytes. */
  readonly scheme: ByteScheme
  /** V: one more than the greatest token id; the model's embedding may have more rows. */
  readonly vocabSize: number
  /** Ids that are control tokens, never text. */
  readonly specialIds: ReadonlySet<number>
  /** The token that begins a text, if the model has one. */
  readonly bosId: number | undefined
  /** The token that ends a text. */
  readonly eosId: number | undefined
  /** Every token at which generation stops: `eosId` and those of generation_config.json. */
  readonly stopIds: readonly number[]
  /** The token that fills batches; foretoken itself never pads. */
  readonly padId: number | undefined
  /** Whether the post-processor begins every text with `bosId`. */
  readonly addsBos: boolean
  /** The model's own chat template, if it has one. */
  readonly chatTemplate: ChatTemplate | undefined
  /** SHA-256 over vocabulary, merges, added tokens and the rules of splitting: equal means equal ids for every text. */
  readonly fingerprint: string

  private readonly base: Backend
  private readonly variants = new Map<string, Backend>()
  private greedy: { ids: Map<string, number>; longest: number } | undefined

  /**
   * Reads tokenizer.json, and where present tokenizer_config.json, generation_config.json, config.json and
   * chat_template.jinja. Throws `IO` when tokenizer.json is missing, `INVALID_TOKENIZER` when a file is malformed.
   */
  static async open(directory: string): Promise<Tokenizer> {
    const json = await readJson(join(directory, 'tokenizer.json'))
    if (!json) {
      throw new ForetokenError(
        'IO',
        `${join(directory, 'tokenizer.json')} does not exist; save the tokenizer in Hugging Face's fast format ` +
          '(AutoTokenizer.from_pretrained(…).save_pretrained(…))',
      )
    }
    const config = (await readJson(join(directory, 'tokenizer_config.json'))) ?? {}
    const generation = (await readJson(join(directory, 'generation_config.json'))) ?? {}
    const model = (await readJson(join(directory, 'config.json'))) ?? {}
    const chatTemplate = await findChatTemplate(directory, config)
    return Tokenizer.fromJson(json, { config, generation, model, ...(chatTemplate !== undefined && { chatTemplate }) })
  }

  /** Makes a tokenizer from parsed files; see `open`. */
  static fromJson(
    json: Record<string, unknown>,
    files: {
      config?: Record<string, unknown>
      generation?: Record<string, unknown>
      model?: Record<string, unknown>
      chatTemplate?: string
    } = {},
  ): Tokenizer {
    const { model } = json
    if (typeof model !== 'object' || model === null) {
      throw new ForetokenError('INVALID_TOKENIZER', 'tokenizer.json has no "model"; it is not a fast tokenizer')
    }
    return new Tokenizer({ ...tokenizerDefaults, ...json, model }, files)
  }

  private constructor(
    private readonly json: TokenizerJson,
    files: {
      config?: Record<string, unknown>
      generation?: Record<string, unknown>
      model?: Record<string, unknown>
      chatTemplate?: string
    },
  ) {
    const { config = {}, generation = {}, model = {} } = files
    const { scheme, byteFallback } = detectByteScheme(json)
    this.scheme = scheme
    try {
      this.base = new Backend(json, config)
    } catch (cause) {
      throw new ForetokenError('INVALID_TOKENIZER', `tokenizer.json cannot be used: ${(cause as Error).message}`, {
        cause,
      })
    }
    const vocabulary = this.base.model!.vocab as readonly (string | undefined)[]
    this.bytes = TokenTable.build(vocabulary, json.added_tokens, scheme, byteFallback)
    this.vocabSize = this.bytes.size
    this.specialIds = new Set(json.added_tokens.filter((token) => token.special).map((token) => token.id))

    const idOfRole = (role: 'bos' | 'eos' | 'pad') => {
      const entry = config[`${role}_token`]
      const content = typeof entry === 'string' ? entry : (entry as { content?: string } | null | undefined)?.content
      if (content !== undefined) return this.idOf(content)
      return idsIn(generation[`${role}_token_id`])[0] ?? idsIn(model[`${role}_token_id`])[0]
    }
    this.bosId = idOfRole('bos')
    this.eosId = idOfRole('eos')
    this.padId = idOfRole('pad')
    const stops = [...idsIn(this.eosId), ...idsIn(generation.eos_token_id ?? model.eos_token_id)]
    this.stopIds = [...new Set(stops)]
    this.addsBos = this.bosId !== undefined && this.base.encode('a').ids[0] === this.bosId
    this.fingerprint = fingerprintOf(json, vocabulary)
    if (files.chatTemplate !== undefined) {
      const tokens: Record<string, string> = {}
      for (const role of ['bos', 'eos', 'pad'] as const) {
        const id = { bos: this.bosId, eos: this.eosId, pad: this.padId }[role]
        if (id !== undefined) tokens[`${role}_token`] = this.tokenOf(id)!
      }
      this.chatTemplate = new ChatTemplate(files.chatTemplate, tokens)
    }
  }

  /** Splits a text into token ids. Throws `INVALID_DATA` where the vocabulary has no token for a part of it. */
  encode(text: string, options: EncodeOptions = {}): Int32Array {
    if (text === '' && !options.template) return new Int32Array(0)
    const { ids } = this.variant(options).encode(text, { add_special_tokens: options.template ?? false })
    const missing = (ids as (number | undefined)[]).indexOf(undefined)
    if (missing >= 0) {
      throw new ForetokenError(
        'INVALID_DATA',
        `the vocabulary has no token for a part of the text ${JSON.stringify(text.slice(0, 60))}, and no unknown token`,
      )
    }
    return Int32Array.from(ids)
  }

  /**
   * Splits bytes into token ids, as a continuation. Bytes that are not UTF-8 (a prediction may end inside a
   * character) are covered by the longest fitting tokens from the left; a byte that no token has is an error.
   */
  encodeBytes(bytes: Uint8Array): Int32Array {
    const text = decodeUtf8(bytes)
    if (text !== undefined) return this.encode(text, { continues: true })
    this.greedy ??= this.greedyTable()
    const latin1 = Buffer.from(bytes).toString('latin1')
    const ids: number[] = []
    for (let at = 0; at < latin1.length; ) {
      let end = Math.min(latin1.length, at + this.greedy.longest)
      let id = this.greedy.ids.get(latin1.slice(at, end))
      while (id === undefined && end > at + 1) id = this.greedy.ids.get(latin1.slice(at, --end))
      if (id === undefined) {
        throw new ForetokenError(
          'INVALID_DATA',
          `the vocabulary has no token for the byte 0x${bytes[at]!.toString(16)}`,
        )
      }
      ids.push(id)
      at = end
    }
    return Int32Array.from(ids)
  }

  /**
   * The text of a run of tokens; bytes that are not UTF-8 become U+FFFD.
   * `special: false` leaves control tokens out. The space that a SentencePiece-style tokenizer puts before a text is
   * taken away unless the run `continues` another.
   */
  decode(ids: ArrayLike<number>, options: { special?: boolean; continues?: boolean } = {}): string {
    const kept = options.special === false ? Array.from(ids).filter((id) => !this.specialIds.has(id)) : ids
    const text = lossyUtf8.decode(this.bytes.join(kept))
    return this.putsSpaceFirst && !options.continues && text.startsWith(' ') ? text.slice(1) : text
  }

  /** The id of a token by its string as the vocabulary writes it. */
  idOf(token: string): number | undefined {
    return this.base.token_to_id(token)
  }

  /** A token's string as the vocabulary writes it. */
  tokenOf(id: number): string | undefined {
    return this.base.id_to_token(id)
  }

  /** The text after the tokenizer's normalizer (such as NFC), which is what its tokens stand for. */
  normalize(text: string): string {
    const normalized = this.base.normalizer ? this.base.normalizer(text) : text
    return this.scheme === 'sentencepiece' ? normalized.replaceAll('\u2581', ' ') : normalized
  }

  /** Whether a text begins with a space that is not its own. */
  get putsSpaceFirst(): boolean {
    return [...flattenSteps(this.json.normalizer), ...flattenSteps(this.json.pre_tokenizer)].some(
      (step) =>
        (step.type === 'Prepend' && step.prepend === '\u2581') ||
        (step.type === 'Metaspace' && step.prepend_scheme !== 'never' && step.add_prefix_space !== false),
    )
  }

  /** The variants share the model's tables: only the splitting of added tokens and the first space differ. */
  private variant({ special = false, continues = false }: EncodeOptions): Backend {
    if (special && !continues) return this.base
    const key = `${special} ${continues}`
    let variant = this.variants.get(key)
    if (!variant) {
      variant = new Backend(
        {
          ...this.json,
          model: { type: 'BPE', vocab: {}, merges: [] },
          added_tokens: this.json.added_tokens.filter((token) => special || !token.special),
          normalizer: continues ? withoutFirstSpace(this.json.normalizer) : this.json.normalizer,
          pre_tokenizer: continues ? withoutFirstSpace(this.json.pre_tokenizer) : this.json.pre_tokenizer,
        },
        {},
      )
      variant.model = this.base.model
      this.variants.set(key, variant)
    }
    return variant
  }

  private greedyTable(): { ids: Map<string, number>; longest: number } {
    const ids = new Map<string, number>()
    let longest = 0
    for (let id = 0; id < this.vocabSize; ++id) {
      const bytes = this.bytes.of(id)
      const key = Buffer.from(bytes).toString('latin1')
      if (bytes.length === 0 || this.specialIds.has(id) || ids.has(key)) continue
      ids.set(key, id)
      longest = Math.max(longest, bytes.length)
    }
    return { ids, longest }
  }
}

const tokenizerDefaults = {
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
}

function withoutFirstSpace(step: TokenizerStep | null): TokenizerStep | null {
  if (!step) return null
  const list = step.normalizers ? 'normalizers' : 'pretokenizers'
  const inner = step[list] as TokenizerStep[] | undefined
  if (step.type === 'Sequence' && inner) {
    return { ...step, [list]: inner.map(withoutFirstSpace).filter((entry) => entry !== null) }
  }
  if (step.type === 'Prepend') return null
  if (step.type === 'Metaspace') return { ...step, prepend_scheme: 'never', add_prefix_space: false }
  if (step.type === 'ByteLevel') return { ...step, add_prefix_space: false }
  return step
}

async function readJson(path: string): Promise<Record<string, unknown> | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new ForetokenError('IO', `${path} cannot be read: ${(cause as Error).message}`, { cause })
  }
  try {
    return JSON.parse(text) as Record<string, unknown>
  } catch (cause) {
    throw new ForetokenError('INVALID_TOKENIZER', `${path} is not valid JSON: ${(cause as Error).message}`, { cause })
  }
}

function idsIn(value: unknown): number[] {
  return (Array.isArray(value) ? value : [value]).filter((id): id is number => typeof id === 'number')
}

function fingerprintOf(json: TokenizerJson, vocabulary: readonly (string | undefined)[]): string {
  const hash = createHash('sha256')
  // Merges come as "a b" or ["a", "b"], the vocabulary in any key order: the hash must not see the difference.
  for (const token of vocabulary) hash.update(`${token ?? ''}\0`)
  for (const merge of json.model.merges ?? []) hash.update(`${Array.isArray(merge) ? merge.join(' ') : merge}\0`)
  const added = [...json.added_tokens].sort((a, b) => a.id - b.id)
  const { vocab: _vocab, merges: _merges, ...model } = json.model as Record<string, unknown>
  hash.update(canonicalJson([model, added, json.normalizer, json.pre_tokenizer]))
  return hash.digest('hex')
}

/** JSON with sorted keys and without null members, so that equal settings give equal text. */
function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value ?? null)
  const members = Object.entries(value).filter(([, member]) => member !== null && member !== undefined)
  members.sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(',')}}`
}

// A byte order mark is a character like any other here: dropping it would lose three bytes.
const lossyUtf8 = new TextDecoder('utf-8', { ignoreBOM: true })
