import { readFile } from 'node:fs/promises'
import { text as readAll } from 'node:stream/consumers'
import { ForetokenError } from '../engine/errors.js'
import { UsageError } from './usage-error.js'

/** The text that a command works on: given as an argument, in a file, or on standard input (`-`). */
export async function inputText(argument: string | undefined, file: string | undefined): Promise<string> {
  if (argument !== undefined && file !== undefined) throw new UsageError('give either a text or --file, not both')
  if (argument !== undefined) return argument
  if (file === undefined) throw new UsageError('a text is missing: give it as an argument, or with --file (- is stdin)')
  if (file === '-') return readAll(process.stdin)
  return readFile(file, 'utf8').catch((cause: Error) => {
    throw new ForetokenError('IO', `${file} cannot be read: ${cause.message}`, { cause })
  })
}
