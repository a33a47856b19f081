import { readBytes } from './byte-stream.js'
import { FieldProblem, type FieldReader } from './fields.js'
import { tooLong } from './read-text.js'
import { type BadRecordKind, type FileRecord, textOfBytes } from './record.js'
import { type Place, splitBytes } from './split-bytes.js'

/** Reads the documents of a JSONL file, one per line, from a place on; blank lines are passed over. */
export async function* readJsonlFile(
  path: string,
  from: Place,
  options: { fields: FieldReader; maxBytes: number },
): AsyncGenerator<FileRecord> {
  const { fields, maxBytes } = options
  for await (const { bytes, at, next } of splitBytes(readBytes(path, from.offset), lineFeed, from, maxBytes)) {
    const bad = (kind: BadRecordKind, message: string): FileRecord => ({ at, next, problem: { kind, message } })
    if (!bytes) {
      yield bad('size', tooLong(maxBytes))
      continue
    }
    const line = textOfBytes(bytes, at)
    if (line === undefined) {
      yield bad('encoding', 'the line is not valid UTF-8')
      continue
    }
    if (line.trim() === '') continue
    let record: unknown
    try {
      record = JSON.parse(line)
    } catch (error) {
      yield bad('json', `the line is not valid JSON (${(error as Error).message})`)
      continue
    }
    yield fromFields(record, fields, at, next)
  }
}

/** The document of a parsed record, or what is wrong with it. */
export function fromFields(record: unknown, fields: FieldReader, at: Place, next: Place): FileRecord {
  try {
    const text = fields.read(record)
    // JSON can spell half of a surrogate pair, which no UTF-8 text has.
    if (!/\p{Surrogate}/u.test(text)) return { at, next, text }
    return { at, next, problem: { kind: 'encoding', message: 'the text has an unpaired surrogate' } }
  } catch (error) {
    if (!(error instanceof FieldProblem)) throw error
    return { at, next, problem: { kind: 'field', message: error.message } }
  }
}

const lineFeed = Buffer.of(0x0a)
