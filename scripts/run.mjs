import { spawnSync } from 'node:child_process'
import { resolve } from 'node:path'

/** The repository's root. */
export const root = resolve(import.meta.dirname, '..')

/** One line for the person who waits; standard error, so that a command's own output stays clean. */
export function say(text) {
  console.error(`foretoken: ${text}`)
}

/** Says why, and ends the process. */
export function quit(text, status = 1) {
  say(text)
  process.exit(status)
}

/** Runs a program without a word; if it fails, prints what it printed and ends this process with its status. */
export function run(program, args, { env = {} } = {}) {
  const result = spawnSync(program, args, {
    cwd: root,
    env: { ...process.env, ...env },
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  })
  if (result.status === 0) return
  process.stderr.write((result.stdout ?? '') + (result.stderr ?? ''))
  const reason = result.error?.message ?? result.signal ?? `exit status ${result.status}`
  quit(`${[program, ...args].join(' ')} failed (${reason})`, result.status ?? 1)
}

/** Runs a program in the open; ends this process with its status if that is not 0. */
export function show(program, args, { env = {} } = {}) {
  const result = spawnSync(program, args, { cwd: root, env: { ...process.env, ...env }, stdio: 'inherit' })
  if (result.status === 0) return
  quit(
    `${[program, ...args].join(' ')} failed (${result.error?.message ?? result.signal ?? result.status})`,
    result.status ?? 1,
  )
}

/** What a program prints, or undefined if it cannot be run or fails. */
export function output(program, args, input = '') {
  const result = spawnSync(program, args, { cwd: root, encoding: 'utf8', input })
  return result.status === 0 ? result.stdout : undefined
}

/** Whether this module is the program that Node was asked to run. */
export function isProgram(meta) {
  return meta.filename === process.argv[1]
}
