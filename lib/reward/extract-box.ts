/**
 * The prediction in a response: the bytes inside the last `\boxed{…}` after `</think>`, as a view, untrimmed.
 *
 * Works on bytes, so it does not matter which tokens spell the marks. Braces nest; a box inside a box is content of
 * the outer one, so that text which itself contains `\boxed{…}` can be predicted. Backslashes do not escape braces,
 * else a lone backslash could not be predicted. Gives null where the thought does not end, where there is no box, and
 * where a box is still open at the end.
 */
export function extractBox(response: Uint8Array): Uint8Array | null {
  const bytes = Buffer.from(response.buffer, response.byteOffset, response.length)
  const thoughtEnd = bytes.indexOf(endOfThought)
  if (thoughtEnd < 0) return null
  // For every open brace: where its box's content begins, or -1 for a brace that opens no box.
  const open: number[] = []
  let openBoxes = 0
  let box: Uint8Array | null = null
  for (let at = thoughtEnd + endOfThought.length; at < bytes.length; ++at) {
    if (bytes[at] === leftBrace) {
      const opensBox = bytes.subarray(Math.max(0, at - boxMark.length), at).equals(boxMark)
      open.push(opensBox ? at + 1 : -1)
      if (opensBox) ++openBoxes
    } else if (bytes[at] === rightBrace) {
      const start = open.pop() ?? -1
      if (start < 0) continue
      // An outer box closes after those inside it, a later box after an earlier one: the last to close is the answer.
      box = response.subarray(start, at)
      --openBoxes
    }
  }
  return openBoxes === 0 ? box : null
}

/** The bytes that end a thought. */
export const endOfThought: Uint8Array = Buffer.from('</think>')

const boxMark = Buffer.from('\\boxed')
const leftBrace = 0x7b
const rightBrace = 0x7d
