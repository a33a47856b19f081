import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

const root = join(import.meta.dirname, '..', '..')
const program = join(root, 'dist', 'cli', 'main.js')
// Nothing to do after `npm run setup`; without it the program would be that of older sources.
execFileSync(process.execPath, [join(root, 'scripts', 'build-ts.mjs')])

export interface Outcome {
  /** The exit status; null where a signal ended the process. */
  status: number | null
  stdout: string
  stderr: string
}

/** Starts the program as a user would. */
export function startForetoken(
  args: readonly string[],
  cwd: string,
): { child: ChildProcess; outcome: Promise<Outcome> } {
  const child = spawn(process.execPath, [program, ...args], {
    cwd,
    env: { ...process.env, FORETOKEN_DEBUG: '' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const finish = async (): Promise<Outcome> => {
    const [stdout, stderr, [status]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
    return { status: status as number | null, stdout, stderr }
  }
  return { child, outcome: finish() }
}

export function foretoken(args: readonly string[], cwd: string): Promise<Outcome> {
  return startForetoken(args, cwd).outcome
}
