import { mkdtemp, rm } from 'node:fs/promises'
import { cpus, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { version } from '../../lib/version.js'
import { foretoken } from './foretoken.js'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'foretoken-doctor-'))
})
afterAll(() => rm(folder, { recursive: true }))
afterEach(() => vi.unstubAllEnvs())

describe('foretoken doctor', () => {
  it('tests this machine and says what it found', async () => {
    const { status, stdout, stderr } = await foretoken(['doctor', '--device', 'cpu'], folder)
    expect(stderr).toBe('')
    expect(status).toBe(0)
    expect(stdout).toMatch(/^self-test +passed in \d+\.\d s on cpu, /m)
    expect(stdout).not.toContain('FAIL')
  })

  it('gives all of it as JSON', async () => {
    const { status, stdout } = await foretoken(['doctor', '--device', 'cpu', '--threads', '1', '--json'], folder)
    expect(status).toBe(0)
    const report = JSON.parse(stdout)
    expect(report).toMatchObject({
      ok: true,
      versions: { foretoken: version, node: process.versions.node, nodeApi: process.versions.napi },
      binary: { version },
      cpu: { processors: cpus().length },
      memory: { total: totalmem() },
    })
    expect(report.selfTest.device).toContain(report.cpu.instructionSet)
    expect(report.selfTest.device).toContain('1 thread')
    expect(report.cpu.threads).toBeLessThanOrEqual(cpus().length)
  })

  it('ends with status 1 where the native core cannot be loaded, and says what to do', async () => {
    vi.stubEnv('FORETOKEN_PREBUILD', folder)
    const { status, stdout, stderr } = await foretoken(['doctor'], folder)
    expect(status).toBe(1)
    expect(stderr).toBe('')
    expect(stdout).toContain('native core      could not be loaded')
    expect(stdout).toContain(`${folder} (from FORETOKEN_PREBUILD)`)
    expect(stdout).toContain('npx foretoken build')
    const { status: again, stdout: json } = await foretoken(['doctor', '--json'], folder)
    expect(again).toBe(1)
    expect(JSON.parse(json)).toMatchObject({ ok: false, cpu: { threads: null, instructionSet: null } })
  })

  it('ends with status 1 where the device cannot be used', async () => {
    vi.stubEnv('FORETOKEN_ISA', 'sse9')
    const { status, stdout } = await foretoken(['doctor', '--device', 'cpu'], folder)
    expect(status).toBe(1)
    expect(stdout).toContain('FAIL  float32: run: INVALID_ARGUMENT: unknown instruction set "sse9"')
  })
})
