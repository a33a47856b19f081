import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { cudaLibraryPlaces } from '../../lib/engine/cuda-library.js'
import { probeCuda, runProbe } from '../../lib/engine/cuda-probe.js'
import { compileLibrary, cudaStandIn } from '../support/cuda-stand-in.js'

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'foretoken-cuda-'))
})
afterAll(() => rmSync(folder, { recursive: true }))
afterEach(() => vi.unstubAllEnvs())

function library(name: string, probe: string, options = {}): string {
  return cudaStandIn(folder, name, probe, options)
}

describe('the probe of a CUDA library', () => {
  test('gives the devices that the library names', async () => {
    const path = library('good', 'return std::snprintf(reason, size, "GPU A\\nGPU B") > 0 ? 2 : 0;')
    expect(await runProbe(path)).toEqual({ ok: true, reason: 'GPU A\nGPU B', devices: 2, library: path })
  })

  test('gives the reason why there is no device', async () => {
    const path = library('none', 'std::snprintf(reason, size, "no driver"); return 0;')
    expect(await runProbe(path)).toEqual({ ok: false, reason: 'no driver', devices: 0, library: path })
  })

  test('survives a library that ends the process, and says how it ended', async () => {
    const path = library('crash', '(void)reason; (void)size; std::abort();')
    const { ok, reason } = await runProbe(path)
    expect(ok).toBe(false)
    expect(reason).toContain(`the process that tried ${path} ended with SIGABRT`)
  })

  test('survives a library that ends the process while it is being loaded', async () => {
    const others = '__attribute__((constructor)) static void load() { std::puts("{ odd"); std::_Exit(3); }'
    const { ok, reason } = await runProbe(library('load', '(void)reason; (void)size; return 1;', { others }))
    expect(ok).toBe(false)
    expect(reason).toContain('ended with status 3')
  })

  test('does not wait for ever', async () => {
    const path = library('hang', '(void)reason; (void)size; for (;;) pause();')
    const { ok, reason } = await runProbe(path, { seconds: 0.5 })
    expect(ok).toBe(false)
    expect(reason).toContain('gave no answer within 0.5 seconds')
  })

  test('refuses a library of another version', async () => {
    const path = library('old', '(void)reason; (void)size; return 1;', { abi: 999 })
    expect((await runProbe(path)).reason).toContain('belongs to another version of foretoken (interface 999')
  })

  test('refuses a file that is no library, and one that is not ours', async () => {
    const text = join(folder, 'text.so')
    writeFileSync(text, 'I am text')
    const other = compileLibrary(folder, 'other', 'extern "C" int other() { return 1; }')
    expect(await runProbe(text)).toMatchObject({ ok: false, devices: 0, reason: expect.stringContaining(text) })
    expect((await runProbe(other)).reason).toContain("is not foretoken's CUDA library")
  })

  test('names every place where there might be one', async () => {
    vi.stubEnv('FORETOKEN_CUDA_LIBRARY', join(folder, 'absent.so'))
    expect(cudaLibraryPlaces()).toEqual([join(folder, 'absent.so')])
    const { ok, reason, library } = await probeCuda()
    expect({ ok, library }).toEqual({ ok: false, library: null })
    expect(reason).toContain('absent.so')
    vi.stubEnv('FORETOKEN_CUDA_LIBRARY', '')
    expect(cudaLibraryPlaces().map((place) => place.split('/').slice(-3).join('/'))).toEqual([
      'build/Release/libforetoken_cuda.so',
      `prebuilds/${process.platform}-${process.arch}/libforetoken_cuda.so`,
    ])
  })

  test('asks a library once, however often it is asked', async () => {
    const path = library('once', 'std::snprintf(reason, size, "%d", getpid()); return 1;')
    const [first, second] = await Promise.all([probeCuda(path), probeCuda(path)])
    expect(second).toEqual(first)
    expect((await probeCuda(path)).reason).toBe(first.reason)
  })
})
