import { ForetokenError } from '../engine/errors.js'
import { Document } from '../text/document.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { TextCorpus, TextStream } from './text-corpus.js'

/** A document of a feed. */
export interface FedDocument {
  /** The document, or the part of a long one. */
  document: Document
  /** The pass over the corpus it belongs to. */
  epoch: number
  /** The first token of the whole text that it holds, for long texts that come in parts. */
  start: number
}

/** What a feed reads, and how it cuts it. */
export interface DocumentFeedOptions {
  /** Splits the texts. */
  tokenizer: Tokenizer
  /** Where the texts come from. */
  corpus: TextCorpus
  /** Which documents; default `train`. */
  part?: 'train' | 'held-out' | 'all'
  /** Passes over the corpus; default without end. */
  epochs?: number
  /** Longer documents come in parts of at most so many tokens. Default whole. */
  maxTokens?: number
  /** Appends the end-of-text token. */
  endOfText?: boolean
  /** What a text does whose tokens do not stand for its bytes; default `error`. */
  onBadDocument?: 'error' | 'skip'
}

/** Where a feed stands, as plain JSON. */
export interface FeedState {
  /** Of the corpus: before the document that is being given in parts, else after the last one. */
  cursor: unknown
  /** Parts of it that were given. */
  parts: number
  /** Documents given so far. */
  documents: number
  /** Documents left out so far. */
  skipped: number
}

/** Tokenised documents one after another, from a place that can be kept as JSON. */
export class DocumentFeed {
  /** Documents that were left out since their tokens do not stand for their bytes. */
  skipped = 0
  /** Documents given; each part of a long one counts. */
  documents = 0

  private stream: TextStream
  private cursorBefore: unknown
  private pending: FedDocument[] = []
  private parts = 0

  constructor(private readonly options: DocumentFeedOptions) {
    this.stream = this.open(undefined, false)
  }

  /** The pass over the corpus that the feed is in, from 0. */
  get epoch(): number {
    return this.pending[0]?.epoch ?? this.stream.cursor().epoch
  }

  /** What has been left out so far, by reason: bad records by their kind, and texts that the tokenizer cannot keep. */
  get leftOut(): Record<string, number> {
    return { ...this.stream.skipped, tokenizer: this.skipped }
  }

  /** The next document; undefined when there are no more. */
  async next(): Promise<FedDocument | undefined> {
    while (this.pending.length === 0) {
      this.cursorBefore = this.stream.cursor()
      this.parts = 0
      const { value: record, done } = await this.stream.next()
      if (done || !record) return undefined
      const document = this.tokenize(record.text, record.hash)
      if (!document) continue
      const { maxTokens = document.length } = this.options
      const { epoch } = this.stream.cursor()
      let start = 0
      for (const part of document.length > maxTokens ? document.windows(maxTokens) : [document]) {
        this.pending.push({ document: part, epoch, start })
        start += part.length
      }
    }
    ++this.parts
    ++this.documents
    return this.pending.shift()!
  }

  /** Where the feed stands: the next document comes after it. */
  state(): FeedState {
    const inside = this.pending.length > 0
    return {
      cursor: inside ? this.cursorBefore : this.stream.cursor(),
      parts: inside ? this.parts : 0,
      documents: this.documents,
      skipped: this.skipped,
    }
  }

  /** Goes to where another feed stood. Throws `DATA_CHANGED` for other data, unless `ignoreChanges`. */
  async restore(state: unknown, options: { ignoreChanges?: boolean } = {}): Promise<void> {
    const { cursor, parts, documents, skipped } = state as FeedState
    await this.close()
    this.stream = this.open(cursor, options.ignoreChanges ?? false)
    this.pending = []
    for (let part = 0; part < parts; ++part) await this.next()
    this.documents = documents
    this.skipped = skipped
  }

  /** Closes what is open; the state stays valid. */
  async close(): Promise<void> {
    await this.stream.return?.()
  }

  private open(cursor: unknown, ignoreChanges: boolean): TextStream {
    const { corpus, part = 'train', epochs = Number.POSITIVE_INFINITY } = this.options
    return corpus.stream({ part, epochs, ...(cursor !== undefined && { cursor: cursor as never }), ignoreChanges })
  }

  private tokenize(text: string, id: string): Document | undefined {
    const { tokenizer, endOfText = false } = this.options
    try {
      const document = Document.tokenize(tokenizer, text, { id, end: endOfText })
      return document.length > 0 ? document : undefined
    } catch (error) {
      const bad = error instanceof ForetokenError && error.code === 'INVALID_DATA'
      if (!bad || this.options.onBadDocument !== 'skip') throw error
      ++this.skipped
      return undefined
    }
  }
}
