import { expect, test } from 'vitest'
import { shareBeginnings } from '../../lib/algorithm/shared-forest.js'
import { PhiloxStream } from '../../lib/corpus/philox.js'

const ids = (...tokens: number[]) => Int32Array.from(tokens)

test('equal beginnings are in the forest once', () => {
  const { forest } = shareBeginnings([ids(1, 2, 3, 4), ids(1, 2, 3, 5, 6), ids(1, 2), ids(9), ids(1, 2, 3, 4)])
  // 1 2 | 3 | 4, 5 6 | 9
  expect(forest.length).toBe(7)
})

test('every sequence is found along its indices, with all of its tokens above one another', () => {
  const random = new PhiloxStream(1, 99, 0)
  const sequences = Array.from({ length: 200 }, () =>
    Int32Array.from({ length: random.below(12) }, () => random.below(3)),
  )
  const { forest, indices } = shareBeginnings(sequences)
  const tokens = forest.tokens
  const segmentOf = new Map<number, number>()
  for (let s = 0; s < forest.segmentCount; ++s) {
    const { begin, end } = forest.segment(s)
    for (let i = begin; i < end; ++i) segmentOf.set(i, s)
  }
  sequences.forEach((sequence, at) => {
    expect(Array.from(indices[at]!, (index) => tokens[index])).toEqual([...sequence])
    if (sequence.length === 0) return
    const last = indices[at]!.at(-1)!
    const path = forest.flatten(segmentOf.get(last)!)
    expect([...path.subarray(0, sequence.length)]).toEqual([...sequence])
  })
  const distinct = new Set(sequences.flatMap((s) => Array.from(s, (_, i) => s.subarray(0, i + 1).join())))
  expect(forest.length).toBe(distinct.size)
})
