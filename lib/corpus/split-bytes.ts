/** Where a record begins: a byte of the decompressed file (or a row of a table) and the line there, from 1. */
export interface Place {
  /** The byte, or row, from 0. */
  offset: number
  /** The line, from 1. */
  line: number
}

/** The first place of a file. */
export const fileStart: Readonly<Place> = { offset: 0, line: 1 }

/** A stretch of bytes between two separators. */
export interface Piece {
  /** The bytes, valid until the next piece is asked for; undefined when there are more than allowed. */
  bytes: Uint8Array | undefined
  /** Where it begins. */
  at: Place
  /** Where the next one begins. */
  next: Place
}

/**
 * Cuts a stream of bytes at a separator, counting lines. What follows the last separator is a piece unless it is empty.
 * Memory stays within about twice `maxBytes`, the longest piece allowed.
 */
export async function* splitBytes(
  chunks: AsyncIterable<Uint8Array>,
  separator: Uint8Array,
  from: Place,
  maxBytes: number,
): AsyncGenerator<Piece> {
  let buffer = Buffer.alloc(1 << 18)
  let start = 0
  let end = 0
  let scanned = 0
  let dropped = 0
  let droppedLines = 0
  let at = { ...from }

  const piece = (length: number, separatorLength: number): Piece => {
    const bytes = buffer.subarray(start, start + length)
    const lines = droppedLines + countNewlines(buffer.subarray(start, start + length + separatorLength))
    const next = { offset: at.offset + dropped + length + separatorLength, line: at.line + lines }
    const tooLong = dropped > 0 || length > maxBytes
    const found = { bytes: tooLong ? undefined : bytes, at, next }
    at = next
    start += length + separatorLength
    scanned = start
    dropped = 0
    droppedLines = 0
    return found
  }

  for await (const chunk of chunks) {
    if (end + chunk.length > buffer.length) {
      const rest = buffer.subarray(start, end)
      const size = Math.max(buffer.length, 2 * (rest.length + chunk.length))
      const target = size > buffer.length ? Buffer.alloc(size) : buffer
      target.set(rest)
      buffer = target
      scanned -= start
      end -= start
      start = 0
    }
    buffer.set(chunk, end)
    end += chunk.length
    for (;;) {
      const found = buffer.subarray(0, end).indexOf(separator, scanned)
      if (found < 0) break
      yield piece(found - start, separator.length)
    }
    // A separator may have begun in the last bytes.
    scanned = Math.max(start, end - separator.length + 1)
    if (scanned - start > maxBytes) {
      droppedLines += countNewlines(buffer.subarray(start, scanned))
      dropped += scanned - start
      start = scanned
    }
  }
  if (end > start || dropped > 0) yield piece(end - start, 0)
}

function countNewlines(bytes: Buffer): number {
  let count = 0
  for (let i = bytes.indexOf(newline); i >= 0; i = bytes.indexOf(newline, i + 1)) ++count
  return count
}

const newline = 0x0a
