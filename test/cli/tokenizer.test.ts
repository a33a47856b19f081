import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { foretoken } from './foretoken.js'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'foretoken-tokenizer-'))
})
afterAll(() => rm(folder, { recursive: true }))

it('tokenizer makes one of bytes, and replaces none unasked', async () => {
  const first = await foretoken(['tokenizer', '--output', 'mine', '--json'], folder)
  expect(JSON.parse(first.stdout)).toEqual({ folder: 'mine', vocabSize: 260, eosTokenId: 259 })
  const second = await foretoken(['tokenizer', '--output', 'mine'], folder)
  expect([second.status, second.stderr]).toEqual([
    1,
    `foretoken: error INVALID_ARGUMENT: ${join('mine', 'tokenizer.json')} is already there; choose another folder or --overwrite\n`,
  ])
  expect((await foretoken(['tokenizer', '--output', 'mine', '--overwrite'], folder)).status).toBe(0)
})

it('tokenizer learns from files, up to the size that was asked for', async () => {
  await writeFile(join(folder, 'text.txt'), 'round and round the rugged rock\n'.repeat(20))
  const { stdout, stderr } = await foretoken(['tokenizer', 'text.txt', '-o', 'learned', '--vocab-size', '270'], folder)
  expect(stderr).toBe('')
  expect(stdout).toBe('learned: for the model, vocab_size 270, eos_token_id 269\n')
  const tooSmall = await foretoken(['tokenizer', 'text.txt', '-o', 'small', '--vocab-size', '200'], folder)
  expect(tooSmall.stderr).toContain('--vocab-size is 200; the bytes and the marks of an answer are 260 already')
})
