import { readBytes } from './byte-stream.js'
import { type FileRecord, textOfBytes } from './record.js'
import { fileStart, type Place, splitBytes } from './split-bytes.js'

/**
 * What of a text file is a document: the whole file, every line, every paragraph (lines up to a blank one), or what
 * lies between separators.
 */
export type TextUnit = 'file' | 'line' | 'paragraph' | { separator: string }

/** Reads the documents of a text file from a place on. */
export async function* readTextFile(
  path: string,
  from: Place,
  options: { unit: TextUnit; maxBytes: number },
): AsyncGenerator<FileRecord> {
  const { unit, maxBytes } = options
  const chunks = readBytes(path, from.offset)
  if (unit === 'paragraph') yield* readParagraphs(chunks, from, maxBytes)
  else if (unit === 'file') yield* readWhole(chunks, from, maxBytes)
  else {
    const separator = unit === 'line' ? '\n' : unit.separator
    for await (const { bytes, at, next } of splitBytes(chunks, Buffer.from(separator), from, maxBytes)) {
      const trimmed = unit === 'line' && bytes?.at(-1) === carriageReturn ? bytes.subarray(0, -1) : bytes
      yield toRecord(trimmed, at, next, maxBytes)
    }
  }
}

async function* readWhole(
  chunks: AsyncIterable<Uint8Array>,
  from: Place,
  maxBytes: number,
): AsyncGenerator<FileRecord> {
  if (from.offset > 0) return
  const parts: Uint8Array[] = []
  let length = 0
  for await (const chunk of chunks) {
    length += chunk.length
    if (length > maxBytes) break
    parts.push(chunk)
  }
  const next = { offset: Math.max(length, 1), line: 1 }
  yield toRecord(length > maxBytes ? undefined : Buffer.concat(parts), fileStart, next, maxBytes)
}

async function* readParagraphs(
  chunks: AsyncIterable<Uint8Array>,
  from: Place,
  maxBytes: number,
): AsyncGenerator<FileRecord> {
  let lines: Buffer[] = []
  let length = 0
  let at = from
  let next = from
  const take = (): FileRecord => {
    const whole = length > maxBytes ? undefined : Buffer.concat(lines)
    // The last line's break separates; it is not part of the paragraph.
    const end = whole?.at(-1) === lineFeed ? -1 : undefined
    const record = toRecord(whole?.subarray(0, end), at, next, maxBytes)
    lines = []
    length = 0
    return record
  }
  for await (const piece of splitBytes(chunks, Buffer.of(lineFeed), from, maxBytes)) {
    const blank = piece.bytes?.every((byte) => byte === 0x20 || byte === 0x09 || byte === carriageReturn) ?? false
    next = piece.next
    if (blank) {
      if (length > 0) yield take()
      continue
    }
    if (length === 0) at = piece.at
    length += piece.next.offset - piece.at.offset
    if (length <= maxBytes && piece.bytes) lines.push(Buffer.concat([piece.bytes, Buffer.of(lineFeed)]))
    else lines = []
  }
  if (length > 0) yield take()
}

function toRecord(bytes: Uint8Array | undefined, at: Place, next: Place, maxBytes: number): FileRecord {
  if (!bytes) return { at, next, problem: { kind: 'size', message: tooLong(maxBytes) } }
  const text = textOfBytes(bytes, at)
  if (text === undefined) return { at, next, problem: { kind: 'encoding', message: 'the text is not valid UTF-8' } }
  return { at, next, text }
}

/** What to say of a record that does not fit. */
export function tooLong(maxBytes: number): string {
  return `the document is longer than ${maxBytes} bytes; raise maxDocumentBytes or split the file into smaller documents`
}

const lineFeed = 0x0a
const carriageReturn = 0x0d
