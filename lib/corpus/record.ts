import { decodeUtf8 } from '../text/utf8.js'
import type { Place } from './split-bytes.js'

/** Why a record cannot be used. */
export type BadRecordKind = 'json' | 'field' | 'encoding' | 'size'

/** One record of a file as a reader finds it: a text, or what is wrong with it. */
export type FileRecord = { at: Place; next: Place } & (
  | { text: string; problem?: undefined }
  | { text?: undefined; problem: { kind: BadRecordKind; message: string } }
)

/**
 * The text of a record's UTF-8 bytes, undefined where they are not UTF-8. A byte order mark at the head of a file is
 * no part of its text.
 */
export function textOfBytes(bytes: Uint8Array, at: Place): string | undefined {
  const text = decodeUtf8(bytes)
  return at.offset === 0 && text?.startsWith('\ufeff') ? text.slice(1) : text
}
