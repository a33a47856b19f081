import { ForetokenError } from '../engine/errors.js'
import { documentHash } from '../text/document.js'
import type { Corpus, CorpusCursor, CorpusDocument, CorpusPart, SkippedCounts } from './corpus.js'
import type { CorpusFile } from './files.js'
import { isHeldOut } from './held-out.js'
import { PhiloxStream, randomUse } from './philox.js'
import type { FileRecord } from './record.js'
import { fileStart } from './split-bytes.js'

/** A place among the files of an epoch. */
interface EpochPlace {
  file: number
  offset: number
  line: number
}

/**
 * Documents one after another, epoch after epoch.
 *
 * The stream is a sequence of windows. A window is a stretch of documents in file order, permuted by a generator keyed
 * with seed, epoch and window number; so a cursor is where a window begins and how many of it are done, and going on
 * means reading that one window again.
 */
export class CorpusStream implements AsyncIterableIterator<CorpusDocument> {
  /** Records left out so far, including the whole window that is being given. */
  readonly skipped: SkippedCounts

  private epoch: number
  private window: number
  private documents: number
  private done: number
  private windowStart: EpochPlace
  private skippedBefore: SkippedCounts
  private epochHadDocuments: boolean
  /** Documents passed over since they belong to another part; for a message only. */
  private ofOtherParts = 0
  private ready: CorpusDocument[] | undefined
  private place: EpochPlace
  private order: CorpusFile[]
  private reader: AsyncGenerator<FileRecord> | undefined

  /** @internal Use `Corpus.stream`. */
  constructor(
    private readonly corpus: Corpus,
    private readonly options: { part: CorpusPart; epochs: number; cursor?: CorpusCursor },
  ) {
    const { cursor } = options
    this.epoch = cursor?.epoch ?? 0
    this.window = cursor?.window ?? 0
    this.done = cursor?.done ?? 0
    this.documents = cursor?.documents ?? 0
    this.windowStart = cursor ? { file: cursor.file, offset: cursor.offset, line: cursor.line } : epochStart
    this.place = this.windowStart
    this.skippedBefore = { ...(cursor?.skipped ?? noneSkipped) }
    this.skipped = { ...this.skippedBefore }
    this.epochHadDocuments = this.window > 0
    this.order = this.filesOfEpoch()
  }

  /** Where the stream stands: after the last document given. */
  cursor(): CorpusCursor {
    return {
      corpus: this.corpus.fingerprint,
      part: this.options.part,
      epoch: this.epoch,
      window: this.window,
      ...this.windowStart,
      done: this.done,
      documents: this.documents,
      skipped: { ...this.skippedBefore },
    }
  }

  /**
   * The next document. Throws `INVALID_DATA` at a bad record unless they are skipped, and where a whole epoch has no
   * document.
   */
  async next(): Promise<IteratorResult<CorpusDocument, undefined>> {
    while (this.epoch < this.options.epochs) {
      this.ready ??= await this.readWindow()
      const document = this.ready[this.done]
      if (document) {
        ++this.done
        ++this.documents
        return { done: false, value: document }
      }
      await this.advance()
    }
    return { done: true, value: undefined }
  }

  /** Closes the file that is being read; the cursor stays valid. */
  async return(): Promise<IteratorResult<CorpusDocument, undefined>> {
    await this.reader?.return(undefined)
    this.reader = undefined
    return { done: true, value: undefined }
  }

  /** The stream itself, for `for await`. */
  [Symbol.asyncIterator](): this {
    return this
  }

  /** Goes to the next window, or to the next epoch after the last. */
  private async advance(): Promise<void> {
    const ended = this.place.file >= this.order.length
    this.epochHadDocuments ||= this.ready!.length > 0
    if (ended && !this.epochHadDocuments) {
      throw new ForetokenError(
        'INVALID_DATA',
        this.ofOtherParts === 0
          ? `the corpus has no documents${describeSkipped(this.skipped)}; check sources and fields`
          : `of the corpus's ${this.ofOtherParts} documents ${this.options.part === 'train' ? 'all are' : 'none is'} ` +
              `held out; heldOut (${this.corpus.options.heldOut ?? 0}) is a share of documents, each decided by its ` +
              'hash: change it, or make more documents of the text (unit: paragraph or unit: line)',
      )
    }
    if (ended) {
      ++this.epoch
      this.window = 0
      this.place = epochStart
      this.epochHadDocuments = false
      this.order = this.filesOfEpoch()
    } else ++this.window
    this.windowStart = this.place
    this.skippedBefore = { ...this.skipped }
    this.done = 0
    this.ready = undefined
  }

  private filesOfEpoch(): CorpusFile[] {
    const files = [...this.corpus.files]
    const { shuffle } = this.corpus.options
    return shuffle ? new PhiloxStream(shuffle.seed, randomUse.fileOrder, this.epoch).shuffle(files) : files
  }

  private async readWindow(): Promise<CorpusDocument[]> {
    const { shuffle } = this.corpus.options
    const most = shuffle ? (shuffle.window ?? defaultWindow) : 1
    const mostBytes = shuffle?.windowBytes ?? defaultWindowBytes
    const documents: CorpusDocument[] = []
    let bytes = 0
    while (documents.length < most && bytes < mostBytes && this.place.file < this.order.length) {
      const document = await this.readDocument()
      if (!document) continue
      documents.push(document)
      bytes += Buffer.byteLength(document.text)
    }
    return shuffle
      ? new PhiloxStream(shuffle.seed, randomUse.window, this.epoch, this.window).shuffle(documents)
      : documents
  }

  /** Reads one record; gives a document where it is one of this part. */
  private async readDocument(): Promise<CorpusDocument | undefined> {
    const file = this.order[this.place.file]!
    this.reader ??= this.corpus.readFile(file, this.place)
    const { value: record, done } = await this.reader.next()
    if (done) {
      this.reader = undefined
      this.place = { file: this.place.file + 1, ...fileStart }
      return undefined
    }
    this.place = { file: this.place.file, ...record.next }
    if (record.problem) {
      if (this.corpus.options.onBadRecord !== 'skip') {
        await this.return()
        throw new ForetokenError(
          'INVALID_DATA',
          `${file.path}:${record.at.line}: ${record.problem.message} (onBadRecord: skip leaves such records out)`,
        )
      }
      ++this.skipped[record.problem.kind]
      return undefined
    }
    if (record.text === '') {
      ++this.skipped.empty
      return undefined
    }
    const hash = documentHash(record.text)
    const { part } = this.options
    if (part !== 'all' && isHeldOut(hash, this.corpus.options.heldOut ?? 0) !== (part === 'held-out')) {
      ++this.ofOtherParts
      return undefined
    }
    return { text: record.text, hash, file: file.name, line: record.at.line }
  }
}

/** Documents a window holds unless told otherwise. */
export const defaultWindow = 1024
const defaultWindowBytes = 32 << 20
const epochStart: Readonly<EpochPlace> = { file: 0, ...fileStart }
const noneSkipped: Readonly<SkippedCounts> = { json: 0, field: 0, encoding: 0, size: 0, empty: 0 }

/** What was left out, for a message: ` (left out: 2 json, 1 empty)`, or nothing. */
function describeSkipped(skipped: SkippedCounts): string {
  const counts = Object.entries(skipped).filter(([, count]) => count > 0)
  return counts.length === 0 ? '' : ` (left out: ${counts.map(([kind, count]) => `${count} ${kind}`).join(', ')})`
}
