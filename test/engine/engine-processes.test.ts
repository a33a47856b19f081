import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** Runs a scenario of test/support/engine-process.ts. A hang becomes a signal in the end, never a passed test. */
function run(scenario: string) {
  const { status, signal, stdout, stderr } = spawnSync(
    process.execPath,
    ['--expose-gc', '--import', './scripts/typescript.mjs', 'test/support/engine-process.ts', scenario],
    { cwd: root, encoding: 'utf8', timeout: 200_000, killSignal: 'SIGKILL' },
  )
  return { status, signal, stdout: stdout.trim(), stderr: stderr.trim() }
}

describe('a process with an engine', { timeout: 240_000 }, () => {
  test('may exit in the middle of a call', () => {
    expect(run('exit in the middle of a call')).toEqual({ status: 7, signal: null, stdout: '', stderr: '' })
  })

  test('may die of an error in the middle of a call', () => {
    expect(run('an uncaught error in the middle of a call')).toEqual({
      status: 3,
      signal: null,
      stdout: 'nobody catches this',
      stderr: '',
    })
  })

  test('ends with its program when the engine is idle, disposed of or not', () => {
    expect(run('the end of the program with an idle engine')).toEqual({
      status: 0,
      signal: null,
      stdout: 'the program ends here',
      stderr: '',
    })
  })

  test('stays until a call that is under way has ended', () => {
    expect(run('the end of the program with a call under way')).toEqual({
      status: 0,
      signal: null,
      stdout: 'scored 10000',
      stderr: '',
    })
  })

  test('may terminate worker threads in the middle of their calls', () => {
    expect(run('workers terminated in the middle of a call')).toEqual({
      status: 0,
      signal: null,
      stdout: 'terminated 2, then scored 500',
      stderr: '',
    })
  })

  test.skipIf(!existsSync('/proc/self/task'))('gets back the threads of engines that it forgot', () => {
    expect(run('engines that are forgotten')).toEqual({ status: 0, signal: null, stdout: 'true true', stderr: '' })
  })
})
