import { mkdir, open, readdir, readFile, rm, rmdir, stat, utimes } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { ForetokenError } from '../engine/errors.js'

/** The content of a lock: which process writes into the run directory. */
interface Holder {
  pid: number
  host: string
  /** When the process began, as the system counts it, since numbers of processes are used again. */
  born: string | undefined
  since: string
}

/**
 * Keeps a run directory to one process. The lock of a process that has ended, by `kill -9` too, is taken over; one of
 * another machine when it has shown no sign of life for two minutes.
 *
 * Locks are numbered files `run.lock.N`: who finds only dead ones makes the next number, which one process alone can, and
 * looks again before it is sure. Nobody removes a name under which another's lock could come to lie.
 */
export class RunLock implements AsyncDisposable {
  private readonly heartbeat: NodeJS.Timeout

  private constructor(
    private readonly path: string,
    private readonly madeDirectory: boolean,
  ) {
    this.heartbeat = setInterval(() => void touch(path), heartbeatSeconds * 1000).unref()
  }

  /** Makes the directory where there is none. Throws `LOCKED` naming the process that holds it. */
  static async acquire(directory: string): Promise<RunLock> {
    const { pid } = process
    const own: Holder = {
      pid,
      host: hostname(),
      born: (await describeProcess(pid))?.born,
      since: new Date().toISOString(),
    }
    let made = false
    for (;;) {
      made ||= (await mkdir(directory, { recursive: true })) !== undefined
      const found = await readLocks(directory)
      const holder = found.find(({ gone }) => !gone)?.holder
      if (holder) throw lockedError(directory, holder)
      const number = found.reduce((highest, lock) => Math.max(highest, lock.number), 0) + 1
      const path = join(directory, `${prefix}${number}`)
      if (!(await createFile(path, `${JSON.stringify(own)}\n`))) continue
      const others = (await readLocks(directory)).filter((lock) => lock.number !== number)
      if (others.every(({ gone }) => gone)) {
        for (const other of others) await rm(join(directory, `${prefix}${other.number}`), { force: true })
        return new RunLock(path, made)
      }
      // Another began at the same moment. Both step back, and not for equally long.
      await rm(path, { force: true })
      await setTimeout(100 * Math.random())
    }
  }

  /** Lets go. A directory that was made for the lock and stayed empty goes too. */
  async release(): Promise<void> {
    clearInterval(this.heartbeat)
    await rm(this.path, { force: true })
    if (this.madeDirectory) await rmdir(dirname(this.path)).catch(() => undefined)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }
}

interface FoundLock {
  number: number
  /** Its process has ended. */
  gone: boolean
  /** Unknown in a lock that a crash has cut off. */
  holder: Holder | undefined
}

async function readLocks(directory: string): Promise<FoundLock[]> {
  const names = (await readdir(directory)).filter((name) => name.startsWith(prefix))
  const locks = await Promise.all(
    names.map(async (name): Promise<FoundLock | undefined> => {
      const number = Number(name.slice(prefix.length))
      const path = join(directory, name)
      // Between its creation and its content, or cut off there by a crash: time tells.
      for (let looks = 0; looks < patience; ++looks) {
        const content = await readFile(path, 'utf8').catch(ignoreMissing)
        if (content === undefined) return undefined
        const holder = parseHolder(content)
        if (holder) return { number, gone: await isGone(holder, path), holder }
        await setTimeout(50)
      }
      return { number, gone: true, holder: undefined }
    }),
  )
  return locks.filter((lock) => lock !== undefined)
}

/** Whether the file was not there before. */
async function createFile(path: string, content: string): Promise<boolean> {
  const file = await open(path, 'wx').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'EEXIST') return undefined
    throw new ForetokenError('IO', `${path} cannot be written: ${error.message}`, { cause: error })
  })
  await file?.writeFile(content)
  await file?.close()
  return file !== undefined
}

async function isGone(holder: Holder, path: string): Promise<boolean> {
  if (holder.host !== hostname()) return (await secondsSinceHeartbeat(path)) > silenceSeconds
  try {
    process.kill(holder.pid, 0)
  } catch (error) {
    // Other users' processes may not be signalled, but are there.
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
  const now = await describeProcess(holder.pid)
  return now !== undefined && (now.ended || (holder.born !== undefined && now.born !== holder.born))
}

/** What Linux says of a process; other systems have no such file. */
async function describeProcess(pid: number): Promise<{ ended: boolean; born: string | undefined } | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  // The second field is the program's name in brackets and may hold anything; fields 3 and 22 are state and start.
  const fields = text?.slice(text.lastIndexOf(')') + 2).split(' ')
  return fields && { ended: fields[0] === 'Z', born: fields[19] }
}

async function secondsSinceHeartbeat(path: string): Promise<number> {
  const found = await stat(path).catch(ignoreMissing)
  return found ? (Date.now() - found.mtimeMs) / 1000 : 0
}

async function touch(path: string): Promise<void> {
  const now = new Date()
  await utimes(path, now, now).catch(() => undefined)
}

function parseHolder(content: string): Holder | undefined {
  try {
    const holder = JSON.parse(content) as Holder
    return Number.isSafeInteger(holder.pid) ? holder : undefined
  } catch {
    return undefined
  }
}

function lockedError(directory: string, { pid, host, since }: Holder): ForetokenError {
  const here = host === hostname()
  const stop = pid === process.pid && here ? 'wait for it' : `wait for it, or stop it (kill -INT ${pid})`
  const elsewhere = here
    ? ''
    : `; should it be gone, its lock is taken over ${silenceSeconds} seconds after its last sign of life`
  return new ForetokenError(
    'LOCKED',
    `process ${pid}${here ? '' : ` on ${host}`} has been writing into ${directory} since ${since}: ${stop}, or choose ` +
      `another --output${elsewhere}`,
  )
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
  return undefined
}

const prefix = 'run.lock.'
const heartbeatSeconds = 15
const silenceSeconds = 120
/** Looks at an unreadable lock, 50 milliseconds apart, until it counts as left behind. */
const patience = 20
