import { createHash } from 'node:crypto'
import { ForetokenError } from '../engine/errors.js'
import { CorpusStream, defaultWindow } from './corpus-stream.js'
import { type FieldOptions, type FieldReader, fieldReader } from './fields.js'
import { type CorpusFile, type FileFingerprint, type FileLocation, findFiles, fingerprintFile } from './files.js'
import { readJsonlFile } from './read-jsonl.js'
import { readParquetFile } from './read-parquet.js'
import { readTextFile, type TextUnit } from './read-text.js'
import type { BadRecordKind, FileRecord } from './record.js'
import type { Place } from './split-bytes.js'

/** One source of a corpus: where its files are and what in them is a document. */
export type CorpusSource = FileLocation &
  FieldOptions & {
    /** What of a text file is a document. Default `file`. */
    unit?: TextUnit
  }

/** A corpus and the order of its documents. */
export interface CorpusOptions {
  /** Where the texts are; at least one. */
  sources: readonly CorpusSource[]
  /** Relative paths are relative to this folder. Default the working directory. */
  baseFolder?: string
  /**
   * Shuffles the order of files, and documents within windows of so many documents or bytes, whichever is reached
   * first: a window is what shuffling holds in memory. Without it documents come in order.
   */
  shuffle?: { seed: number; window?: number; windowBytes?: number }
  /** The share of documents, chosen by their hash, that is kept out of training. Default 0. */
  heldOut?: number
  /** What a bad record does. Default `error`. */
  onBadRecord?: 'error' | 'skip'
  /** Longer documents are bad records. Default 64 MiB. */
  maxDocumentBytes?: number
  /** Fingerprints files by all their bytes instead of size, head and tail. */
  fullFingerprint?: boolean
}

/** Which documents of a corpus. */
export type CorpusPart = 'train' | 'held-out' | 'all'

/** A document of a corpus. */
export interface CorpusDocument {
  /** The whole text. */
  text: string
  /** SHA-256 of its UTF-8 bytes, as hex. */
  hash: string
  /** The file it is from. */
  file: string
  /** Its line (or row, in tables) there, from 1. */
  line: number
}

/** Records that were left out, by what was wrong with them; `empty` documents are never an error. */
export type SkippedCounts = Record<BadRecordKind | 'empty', number>

/** Where a stream stands: plain JSON. A stream made from it goes on with the next document. */
export interface CorpusCursor {
  /** Fingerprint of the data and of everything that decides the order. */
  corpus: string
  /** Which documents the stream gives. */
  part: CorpusPart
  /** The pass over the corpus, from 0. */
  epoch: number
  /** The window of the epoch that the next document is in, where it begins, and how many of it are done. */
  window: number
  /** The file that the window begins in, by its place in the order of the epoch. */
  file: number
  /** The byte, or row, in it. */
  offset: number
  /** The line in it, from 1. */
  line: number
  /** Documents of the window that are done. */
  done: number
  /** Documents given in all epochs. */
  documents: number
  /** Skipped before the window. */
  skipped: SkippedCounts
}

/**
 * Text in files, read as a stream of documents with bounded memory.
 *
 * Memory: the longest document, one window when shuffling, one row group of Parquet.
 */
export class Corpus {
  private constructor(
    /** The files, in the order of the sources. */
    readonly files: readonly CorpusFile[],
    /** What the files are: name, size and digest of each. */
    readonly fileFingerprints: readonly FileFingerprint[],
    /** As given. */
    readonly options: CorpusOptions,
    /** SHA-256 over files and over everything that decides which documents there are and in which order. */
    readonly fingerprint: string,
    private readonly readers: readonly FieldReader[],
  ) {}

  /**
   * Finds the files and fingerprints them. Throws `IO` for what is missing, `INVALID_CONFIG` for options that
   * contradict each other.
   */
  static async open(options: CorpusOptions): Promise<Corpus> {
    const { sources, heldOut = 0, shuffle } = options
    if (sources.length === 0) throw new ForetokenError('INVALID_CONFIG', 'a corpus needs at least one source')
    if (!(heldOut >= 0 && heldOut < 1)) {
      throw new ForetokenError('INVALID_CONFIG', `heldOut is ${heldOut}; it must be a share from 0 to below 1`)
    }
    const window = shuffle?.window ?? defaultWindow
    if (!(Number.isInteger(window) && window > 0 && window < 2 ** 32)) {
      throw new ForetokenError('INVALID_CONFIG', `shuffle.window is ${window}; it must be a positive whole number`)
    }
    if (shuffle && !Number.isSafeInteger(shuffle.seed)) {
      throw new ForetokenError('INVALID_CONFIG', `shuffle.seed is ${shuffle.seed}; it must be a whole number`)
    }
    const readers = sources.map(fieldReader)
    const files: CorpusFile[] = []
    for (const [i, source] of sources.entries()) files.push(...(await findFiles(source, i, options.baseFolder)))
    const fingerprints: FileFingerprint[] = []
    for (const file of files) fingerprints.push(await fingerprintFile(file, options.fullFingerprint ?? false))
    const rules = sources.map(({ unit = 'file', field, template }) => ({ unit, field, template }))
    const order = files.map(({ source, format }) => [source, format])
    const settings = { heldOut, shuffle, maxDocumentBytes: options.maxDocumentBytes }
    const fingerprint = createHash('sha256')
      .update(JSON.stringify([fingerprints, rules, order, settings]))
      .digest('hex')
    return new Corpus(files, fingerprints, options, fingerprint, readers)
  }

  /**
   * Streams documents, from the beginning or from a cursor. Throws `DATA_CHANGED` for a cursor of other data or another
   * order, unless `ignoreChanges`.
   */
  stream(
    options: { part?: CorpusPart; epochs?: number; cursor?: CorpusCursor; ignoreChanges?: boolean } = {},
  ): CorpusStream {
    const { cursor, part = cursor?.part ?? 'all', epochs = 1 } = options
    if (cursor && !options.ignoreChanges && (cursor.corpus !== this.fingerprint || cursor.part !== part)) {
      throw new ForetokenError(
        'DATA_CHANGED',
        cursor.part !== part
          ? `the cursor is of the ${cursor.part} documents, not of the ${part} ones`
          : 'the corpus or its order (files, fields, shuffling, held-out share) is not that of the cursor; ' +
              'restore it, or start a new run',
      )
    }
    return new CorpusStream(this, { part, epochs, ...(cursor && { cursor }) })
  }

  /** Reads one file from a place on. */
  readFile(file: CorpusFile, from: Place): AsyncGenerator<FileRecord> {
    const maxBytes = this.options.maxDocumentBytes ?? defaultMaxDocumentBytes
    const fields = this.readers[file.source]!
    if (file.format === 'jsonl') return readJsonlFile(file.path, from, { fields, maxBytes })
    if (file.format === 'parquet') return readParquetFile(file.path, from, { fields, maxBytes })
    return readTextFile(file.path, from, { unit: this.options.sources[file.source]!.unit ?? 'file', maxBytes })
  }
}

/** Names the files that differ between two lists of fingerprints, in words for people. */
export function describeChanges(before: readonly FileFingerprint[], after: readonly FileFingerprint[]): string[] {
  const old = new Map(before.map((file) => [file.name, file]))
  const now = new Map(after.map((file) => [file.name, file]))
  const changes = before.filter((file) => !now.has(file.name)).map((file) => `${file.name} is gone`)
  for (const file of after) {
    const known = old.get(file.name)
    if (!known) changes.push(`${file.name} is new`)
    else if (known.digest !== file.digest || known.bytes !== file.bytes) {
      changes.push(`${file.name} has changed (${known.bytes} bytes then, ${file.bytes} now)`)
    }
  }
  return changes
}

const defaultMaxDocumentBytes = 64 << 20
