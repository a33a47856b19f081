import { expect, test } from 'vitest'
import { lossNormaliser } from '../../lib/algorithm/aggregation.js'
import { overlongPunishment } from '../../lib/algorithm/overlong.js'

test('the overlong punishment grows from 0 to -1 within the buffer, as in DAPO', () => {
  const punish = (length: number) => overlongPunishment({ buffer: 4096 }, length, 20480)
  expect(punish(1)).toBe(0)
  expect(punish(16384)).toBe(0)
  expect(punish(16384 + 1024)).toBe(-0.25)
  expect(punish(20480)).toBe(-1)
  expect(punish(30000)).toBe(-1)
  expect(overlongPunishment({ buffer: 10, factor: 0.5 }, 95, 100)).toBe(-0.25)
})

test('a batch is divided by its tokens, its answers, or its answers times the limit', () => {
  expect(lossNormaliser('token-mean', [3, 5, 2], 100)).toBe(10)
  expect(lossNormaliser('sequence-mean', [3, 5, 2], 100)).toBe(3)
  expect(lossNormaliser('constant', [3, 5, 2], 100)).toBe(300)
})
