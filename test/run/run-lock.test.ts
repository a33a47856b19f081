import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { RunLock } from '../../lib/run/run-lock.js'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'foretoken-lock-'))
})
afterAll(() => rm(folder, { recursive: true }))

const children: ChildProcess[] = []
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
})

let directories = 0
const newDirectory = () => join(folder, `run-${++directories}`)

/** A process that takes the lock and keeps it until it is killed. */
async function holder(directory: string): Promise<ChildProcess> {
  const source = new URL('../../lib/run/run-lock.ts', import.meta.url).href
  const hooks = new URL('../../scripts/typescript.mjs', import.meta.url).href
  const program =
    `const { RunLock } = await import(${JSON.stringify(source)})\n` +
    `await RunLock.acquire(${JSON.stringify(directory)})\n` +
    `console.log('locked')\nsetInterval(() => undefined, 1000)\n`
  const child = spawn(process.execPath, ['--import', hooks, '--input-type=module', '-e', program])
  children.push(child)
  await once(child.stdout, 'data')
  return child
}

async function writeLock(directory: string, holder: object | string): Promise<string> {
  await mkdir(directory, { recursive: true })
  const path = join(directory, 'run.lock.1')
  await writeFile(path, typeof holder === 'string' ? holder : JSON.stringify(holder))
  return path
}

describe('the lock of a run directory', () => {
  it('is held by one process at a time, and the other is told which and what to do', async () => {
    const directory = newDirectory()
    const child = await holder(directory)
    await expect(RunLock.acquire(directory)).rejects.toMatchObject({
      code: 'LOCKED',
      message: expect.stringMatching(
        new RegExp(
          `^process ${child.pid} has been writing into ${directory} since .* \\(kill -INT ${child.pid}\\), or`,
        ),
      ),
    })
  })

  it('is held by one run of a process at a time, and free again after it', async () => {
    const directory = newDirectory()
    const first = await RunLock.acquire(directory)
    await expect(RunLock.acquire(directory)).rejects.toMatchObject({ code: 'LOCKED' })
    await first.release()
    await (await RunLock.acquire(directory)).release()
  })

  it('leaves nothing behind, neither the directory that it made', async () => {
    const directory = newDirectory()
    await (await RunLock.acquire(directory)).release()
    expect(await stat(directory).catch(() => undefined)).toBeUndefined()
    await mkdir(directory)
    await (await RunLock.acquire(directory)).release()
    expect(await readdir(directory)).toEqual([])
  })

  it('of a process that was killed is taken over', async () => {
    const directory = newDirectory()
    const child = await holder(directory)
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(JSON.parse(await readFile(join(directory, 'run.lock.1'), 'utf8'))).toMatchObject({ pid: child.pid })
    await using _ = await RunLock.acquire(directory)
    expect(await readdir(directory)).toEqual(['run.lock.2'])
    expect(JSON.parse(await readFile(join(directory, 'run.lock.2'), 'utf8'))).toMatchObject({ pid: process.pid })
  })

  it.runIf(process.platform === 'linux')('of a process whose number another has now is taken over', async () => {
    const directory = newDirectory()
    await writeLock(directory, { pid: process.ppid, host: hostname(), born: '1', since: 'then' })
    await using _ = await RunLock.acquire(directory)
  })

  it('that a crash left without content is taken over', async () => {
    const directory = newDirectory()
    await writeLock(directory, '')
    await using _ = await RunLock.acquire(directory)
  })

  it('of another machine is taken over when it has been silent for two minutes', async () => {
    const directory = newDirectory()
    const path = await writeLock(directory, { pid: 1, host: `not-${hostname()}`, since: 'then' })
    await expect(RunLock.acquire(directory)).rejects.toMatchObject({
      code: 'LOCKED',
      message: expect.stringContaining(`process 1 on not-${hostname()}`),
    })
    const before = new Date(Date.now() - 121_000)
    await utimes(path, before, before)
    await using _ = await RunLock.acquire(directory)
  })

  it('is taken over by one of many that try at once', async () => {
    const directory = newDirectory()
    const child = await holder(directory)
    child.kill('SIGKILL')
    await once(child, 'exit')
    const tries = await Promise.allSettled(Array.from({ length: 20 }, () => RunLock.acquire(directory)))
    const locks = tries.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    expect(locks).toHaveLength(1)
    await locks[0]!.release()
  })
})
