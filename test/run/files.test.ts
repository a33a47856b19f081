import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { JsonLinesLog, readJsonLines } from '../../lib/run/json-lines-log.js'
import { writeAtomically } from '../../lib/run/write-atomically.js'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'foretoken-files-'))
})
afterAll(() => rm(folder, { recursive: true }))

describe('a file written atomically', () => {
  it('is there with its content, and nothing beside it', async () => {
    const path = join(folder, 'deep', 'er', 'a.json')
    await writeAtomically(path, 'one')
    await writeAtomically(path, 'two')
    expect(await readFile(path, 'utf8')).toBe('two')
    expect(await readdir(join(folder, 'deep', 'er'))).toEqual(['a.json'])
  })

  it('has one of its contents whole after a kill at any moment', async () => {
    const path = join(folder, 'killed.txt')
    const source = new URL('../../lib/run/write-atomically.ts', import.meta.url).href
    const hooks = new URL('../../scripts/typescript.mjs', import.meta.url).href
    // The child writes the file over and over, each time a megabyte of another letter, until it is killed.
    const program =
      `const { writeAtomically } = await import(${JSON.stringify(source)})\n` +
      `for (let i = 0; ; ++i) {\n` +
      `  await writeAtomically(${JSON.stringify(path)}, 'abc'[i % 3].repeat(1 << 20))\n` +
      `  if (i === 0) console.log('ready')\n}\n`
    for (const milliseconds of [3, 30]) {
      const child = spawn(process.execPath, ['--import', hooks, '--input-type=module', '-e', program])
      await once(child.stdout, 'data')
      await setTimeout(milliseconds)
      child.kill('SIGKILL')
      const [, signal] = await once(child, 'exit')
      expect(signal).toBe('SIGKILL')
      const content = await readFile(path, 'utf8')
      expect(content.length).toBe(1 << 20)
      expect(new Set(content).size).toBe(1)
    }
  })
})

describe('a log of JSON lines', () => {
  const log = () => join(folder, `${Math.random()}.jsonl`)

  it('keeps what belongs to a checkpoint and forgets what came after', async () => {
    const path = log()
    const first = await JsonLinesLog.open(path)
    for (const step of [0, 1, 2, 2, 3, 4]) await first.append({ step, letter: 'ä' } as { step: number })
    await first.close()
    const resumed = await JsonLinesLog.open(path, 2)
    await resumed.append({ step: 3 })
    await resumed.close()
    expect((await readJsonLines<{ step: number }>(path)).map(({ step }) => step)).toEqual([0, 1, 2, 2, 3])
  })

  it('is emptied for a new run', async () => {
    const path = log()
    for (let i = 0; i < 2; ++i) {
      const file = await JsonLinesLog.open(path)
      await file.append({ step: 1 })
      await file.close()
    }
    expect(await readJsonLines(path)).toEqual([{ step: 1 }])
  })

  it('loses a line that a crash cut short, and nothing else', async () => {
    const path = log()
    await writeFile(path, '{"step":1}\n{"step":2}\n{"ste')
    expect(await readJsonLines(path)).toEqual([{ step: 1 }, { step: 2 }])
    const resumed = await JsonLinesLog.open(path, 9)
    await resumed.append({ step: 3 })
    await resumed.close()
    expect(await readJsonLines(path)).toEqual([{ step: 1 }, { step: 2 }, { step: 3 }])
  })

  it('writes numbers that JSON lacks as null', async () => {
    const path = log()
    const file = await JsonLinesLog.open(path)
    await file.append({ step: 1, loss: Number.NaN, top: Number.POSITIVE_INFINITY } as { step: number })
    await file.close()
    expect(await readJsonLines(path)).toEqual([{ step: 1, loss: null, top: null }])
  })

  it('that was broken by hand is refused with its line', async () => {
    const path = log()
    await mkdir(folder, { recursive: true })
    await writeFile(path, '{"step":1}\nbroken\n')
    await expect(readJsonLines(path)).rejects.toThrow(`${path}:2 is not JSON`)
  })
})
