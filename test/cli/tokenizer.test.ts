import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { foretoken } from './foretoken.js'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'foretoken-tokenizer-'))
})
afterAll(() => rm(folder, { recursive: true }))

it('tokenizer writes one that says what its model needs, and replaces none unasked', async () => {
  const first = await foretoken(['tokenizer', 'mine', '--json'], folder)
  expect(JSON.parse(first.stdout)).toEqual({ folder: 'mine', vocabSize: 260, eosTokenId: 259 })
  const second = await foretoken(['tokenizer', 'mine'], folder)
  expect([second.status, second.stderr]).toEqual([
    1,
    `foretoken: error INVALID_ARGUMENT: ${join('mine', 'tokenizer.json')} is already there; choose another folder or --overwrite\n`,
  ])
  expect((await foretoken(['tokenizer', 'mine', '--overwrite'], folder)).status).toBe(0)
})
