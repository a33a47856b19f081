import { type FileHandle, mkdir, open, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { ForetokenError } from '../engine/errors.js'

/** A line of a log: what it says belongs to the state after so many steps. */
export interface LogLine {
  step: number
}

/**
 * A log that only grows, one JSON object per line, in the order of steps.
 *
 * A run that is resumed at a step cuts off what came after it, so that nothing stands in the log twice.
 */
export class JsonLinesLog {
  private constructor(private readonly file: FileHandle) {}

  /** Opens a log to append to, keeping its lines up to a step and none without one. */
  static async open(path: string, throughStep?: number): Promise<JsonLinesLog> {
    await mkdir(dirname(path), { recursive: true })
    const keep = throughStep === undefined ? 0 : lengthThrough(await readOrEmpty(path), throughStep)
    const file = await open(path, 'a')
    try {
      await file.truncate(keep)
      return new JsonLinesLog(file)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** Adds one line. */
  async append(record: LogLine): Promise<void> {
    await this.file.appendFile(`${jsonLine(record)}\n`)
  }

  /** Brings everything to disk. */
  async sync(): Promise<void> {
    await this.file.sync()
  }

  async close(): Promise<void> {
    await this.file.close()
  }
}

/** A record as one line of JSON; numbers that JSON does not have become null. */
export function jsonLine(record: object): string {
  return JSON.stringify(record, (_, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? null : value,
  )
}

/**
 * Reads a log; one that does not exist is empty. A last line without an end is a write that a crash cut short and is
 * left out. Throws `INVALID_DATA` naming the line where another one is not JSON.
 */
export async function readJsonLines<Line>(path: string): Promise<Line[]> {
  const lines = (await readOrEmpty(path)).toString('utf8').split('\n')
  lines.pop()
  return lines.map((line, index) => {
    try {
      return JSON.parse(line) as Line
    } catch (cause) {
      throw new ForetokenError('INVALID_DATA', `${path}:${index + 1} is not JSON; the file was changed by hand`, {
        cause,
      })
    }
  })
}

/** The bytes of the complete lines that come before the first one of a later step. */
function lengthThrough(log: Buffer, throughStep: number): number {
  let start = 0
  for (let end = log.indexOf(0x0a); end >= 0; end = log.indexOf(0x0a, start)) {
    const { step } = JSON.parse(log.toString('utf8', start, end)) as LogLine
    if (step > throughStep) break
    start = end + 1
  }
  return start
}

async function readOrEmpty(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0)
    throw error
  }
}
