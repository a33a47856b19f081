import type { Tokenizer } from '../text/tokenizer.js'
import { endOfThought } from './extract-box.js'

/** Tokens of an answer before its `</think>`; all of them where the thought does not end. */
export function thoughtLength({ bytes }: Tokenizer, response: Int32Array, responseBytes: Uint8Array): number {
  const end = Buffer.from(responseBytes.buffer, responseBytes.byteOffset, responseBytes.length).indexOf(endOfThought)
  if (end < 0) return response.length
  let tokens = 0
  for (let length = bytes.lengthOf(response[0]!); length <= end; length += bytes.lengthOf(response[tokens]!)) ++tokens
  return tokens
}
