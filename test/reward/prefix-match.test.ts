import { describe, expect, it } from 'vitest'
import { extractBox } from '../../lib/reward/extract-box.js'
import { prefixMatch } from '../../lib/reward/prefix-match.js'
import { Document } from '../../lib/text/document.js'
import { byteLevelTokenizer } from '../text/small-tokenizers.js'

const bytes = (text: string) => new TextEncoder().encode(text)
const box = (response: string) => {
  const found = extractBox(bytes(response))
  return found === null ? null : Buffer.from(found).toString()
}

describe('the prediction of a response', () => {
  const cases: [string, string, string | null][] = [
    ['is inside the box after the thought', 'hm</think>\\boxed{ para}', ' para'],
    ['keeps every blank', '</think>so \\boxed{ \n } .', ' \n '],
    ['is that of the last of two boxes', '</think>\\boxed{a} or rather \\boxed{b}', 'b'],
    ['is not in a box of the thought', 'maybe \\boxed{a}</think> no idea', null],
    ['needs the end of the thought', 'maybe \\boxed{a}', null],
    ['may have a box in the thought before it', '\\boxed{a}</think>\\boxed{b}', 'b'],
    ['may contain nested braces', '</think>\\boxed{\\frac{1}{2^{3}}}', '\\frac{1}{2^{3}}'],
    ['may contain a box', '</think>\\boxed{\\boxed{1991^2}}', '\\boxed{1991^2}'],
    ['may be a lone backslash', '</think>\\boxed{ \\}', ' \\'],
    ['may be empty, which is a prediction of nothing', '</think>\\boxed{}', ''],
    ['is none when the box is cut off', '</think>\\boxed{ab', null],
    ['is none when the last of two boxes is cut off', '</think>\\boxed{a} \\boxed{b', null],
    ['is none when an inner brace is not closed', '</think>\\boxed{{}', null],
    ['is none when the outer box is cut off', '</think>\\boxed{a \\boxed{b}', null],
    ['does not mind stray braces outside', '</think>} { \\boxed{a} }', 'a'],
    ['needs the mark to be complete', '</think>boxed{a} \\boxed {b}', null],
    ['counts boxes after the first end of a thought', '</think>\\boxed{a}</think>', 'a'],
    ['may be in another script', '</think>\\boxed{é😀}', 'é😀'],
  ]
  for (const [name, response, expected] of cases) it(name, () => expect(box(response)).toBe(expected))

  it('is found on bytes that are not UTF-8', () => {
    const response = Buffer.concat([Buffer.from('</think>\\boxed{'), Buffer.of(0xf0, 0x9f), Buffer.from('}')])
    expect([...extractBox(response)!]).toEqual([0xf0, 0x9f])
  })
})

describe('prefix match', () => {
  // Tokens: "the", " quick", " br" "own", "\n", é as one token, 😀 as four bytes, "x".
  const tokenizer = byteLevelTokenizer([
    ['t', 'h'],
    ['th', 'e'],
    ['\u0120', 'q'],
    ['u', 'i'],
    ['\u0120q', 'ui'],
    ['c', 'k'],
    ['\u0120qui', 'ck'],
    ['\u0120', 'b'],
    ['\u0120b', 'r'],
    ['o', 'w'],
    ['ow', 'n'],
    ['Ã', '©'],
  ])
  const document = Document.tokenize(tokenizer, 'the quick brown\né😀x')
  const lengths = Array.from({ length: document.length }, (_, t) => document.tokenBytes(t).length)
  const match = (prediction: Uint8Array | string, t: number) =>
    prefixMatch(typeof prediction === 'string' ? bytes(prediction) : prediction, document, t)

  it('stands on the tokens written out here', () => expect(lengths).toEqual([3, 6, 3, 3, 1, 2, 1, 1, 1, 1, 1]))

  it('accepts the next token', () => expect(match(' quick', 1)).toBe(true))
  it('accepts several tokens', () => {
    expect(match(' quick br', 1)).toBe(true)
    expect(match(' quick brown\né😀x', 1)).toBe(true)
  })
  it('refuses an end inside a token', () => {
    expect(match(' qui', 1)).toBe(false)
    expect(match(' quick b', 1)).toBe(false)
  })
  it('refuses a wrong byte at the end of a right length', () => expect(match(' quicc', 1)).toBe(false))
  it('needs the leading space, and no other', () => {
    expect(match('quick', 1)).toBe(false)
    expect(match('  quick', 1)).toBe(false)
    expect(match(' quick ', 1)).toBe(false)
  })
  it('takes a newline as a token', () => {
    expect(match('\n', 4)).toBe(true)
    expect(match('\r\n', 4)).toBe(false)
    expect(match('own\n', 3)).toBe(true)
  })
  it('accepts an end inside a UTF-8 character exactly where a token ends there', () => {
    expect(match(Uint8Array.of(0xc3), 5)).toBe(false)
    expect(match(Uint8Array.of(0xc3, 0xa9), 5)).toBe(true)
    expect(match(Uint8Array.of(0xf0), 6)).toBe(true)
    expect(match(Uint8Array.of(0xf0, 0x9f), 6)).toBe(true)
    expect(match(Uint8Array.of(0x98, 0x80, 0x78), 8)).toBe(true)
    expect(match('\ufffd', 8)).toBe(false)
  })
  it('refuses nothing at all, and more than there is', () => {
    expect(match('', 1)).toBe(false)
    expect(prefixMatch(null, document, 1)).toBe(false)
    expect(match('x', 10)).toBe(true)
    expect(match('xy', 10)).toBe(false)
    expect(match('x', document.length)).toBe(false)
  })
  it('does not take bytes of an earlier position', () => expect(match('the', 1)).toBe(false))

  it('takes boundaries from the document, also where its rest would be tokenised otherwise', () => {
    // "!'s" is split as "!'" and "s", its rest "'s" as one word that is one token.
    const contraction = byteLevelTokenizer([["'", 's']])
    const other = Document.tokenize(contraction, "!'s")
    expect([other.length, contraction.encode("'s").length]).toEqual([3, 1])
    expect(prefixMatch(bytes("'"), other, 1)).toBe(true)
    expect(prefixMatch(bytes("'s"), other, 1)).toBe(true)
  })

  it('gives nothing for the bytes of an end-of-text token', () => {
    const ended = Document.tokenize(tokenizer, 'the', { end: true })
    expect(prefixMatch(bytes('</s>'), ended, 1)).toBe(false)
    expect(prefixMatch(bytes(''), ended, 1)).toBe(false)
  })
})
