import { type FileHandle, open } from 'node:fs/promises'
import { type AsyncBuffer, parquetMetadataAsync, parquetReadObjects, parquetSchema } from 'hyparquet'
import { compressors } from 'hyparquet-compressors'
import { ForetokenError } from '../engine/errors.js'
import { decodeUtf8 } from '../text/utf8.js'
import type { FieldReader } from './fields.js'
import { fromFields } from './read-jsonl.js'
import { tooLong } from './read-text.js'
import type { FileRecord } from './record.js'
import type { Place } from './split-bytes.js'

/**
 * Reads the documents of a Parquet file, one per row, from a row on. One row group's needed columns are in memory at a
 * time. 64-bit integers become decimal text exactly. Throws `IO` when the file is damaged.
 */
export async function* readParquetFile(
  path: string,
  from: Place,
  options: { fields: FieldReader; maxBytes: number },
): AsyncGenerator<FileRecord> {
  const { fields, maxBytes } = options
  const handle = await open(path).catch((cause: Error) => {
    throw new ForetokenError('IO', `${path} cannot be opened: ${cause.message}`, { cause })
  })
  const damaged = (cause: unknown) =>
    new ForetokenError('IO', `${path} cannot be read as Parquet: ${(cause as Error).message}`, { cause })
  try {
    const file = await asyncBuffer(handle)
    const metadata = await parquetMetadataAsync(file).catch((cause: unknown) => {
      throw damaged(cause)
    })
    const present = parquetSchema(metadata).children.map((child) => child.element.name)
    // A column that is not there is a missing field of every row, which is for the rows to say.
    const columns = fields.columns.filter((column) => present.includes(column))
    let groupStart = 0
    for (const group of metadata.row_groups) {
      const rowStart = Math.max(groupStart, from.offset)
      const rowEnd = groupStart + Number(group.num_rows)
      groupStart = rowEnd
      if (rowStart >= rowEnd) continue
      const rows =
        columns.length === 0
          ? Array.from({ length: rowEnd - rowStart }, () => ({}))
          : await parquetReadObjects({
              file,
              metadata,
              columns,
              rowStart,
              rowEnd,
              compressors,
              parsers: { stringFromBytes: strictString },
            }).catch((cause: unknown) => {
              throw damaged(cause)
            })
      for (const [i, row] of rows.entries()) {
        const at = { offset: rowStart + i, line: rowStart + i + 1 }
        const next = { offset: at.offset + 1, line: at.line + 1 }
        const broken = columns.find((column) => (row as Record<string, unknown>)[column] === invalidText)
        const record = fromFields(row, fields, at, next)
        if (broken !== undefined) {
          yield { at, next, problem: { kind: 'encoding', message: `field '${broken}' is not valid UTF-8` } }
        } else if (record.text !== undefined && Buffer.byteLength(record.text) > maxBytes) {
          yield { at, next, problem: { kind: 'size', message: tooLong(maxBytes) } }
        } else yield record
      }
    }
  } finally {
    await handle.close()
  }
}

async function asyncBuffer(handle: FileHandle): Promise<AsyncBuffer> {
  const { size } = await handle.stat()
  return {
    byteLength: size,
    async slice(start, end = size) {
      const bytes = new Uint8Array(end - start)
      for (let at = 0; at < bytes.length; ) {
        const { bytesRead } = await handle.read(bytes, at, bytes.length - at, start + at)
        if (bytesRead === 0) throw new Error('the file ends too early')
        at += bytesRead
      }
      return bytes.buffer
    },
  }
}

/** The reader's own decoder would turn broken bytes into U+FFFD silently. */
function strictString(bytes: Uint8Array | undefined): unknown {
  return bytes && (decodeUtf8(bytes) ?? invalidText)
}

const invalidText = Symbol('invalid UTF-8')
