import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { chooseDevice } from '../../lib/engine/choose-device.js'
import { Engine } from '../../lib/engine/engine.js'
import { cudaStandIn } from '../support/cuda-stand-in.js'
import { tinyConfig } from '../support/tiny-model.js'

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'foretoken-device-'))
})
afterAll(() => rmSync(folder, { recursive: true }))
afterEach(() => vi.unstubAllEnvs())

function useLibrary(path: string): string {
  vi.stubEnv('FORETOKEN_CUDA_LIBRARY', path)
  return path
}

describe('the device', () => {
  test('is the GPU by default where its library has been tried and is good', async () => {
    const cudaLibrary = useLibrary(cudaStandIn(folder, 'good', 'std::snprintf(reason, size, "GPU A"); return 1;'))
    expect(await chooseDevice()).toEqual({ device: 'cuda', cudaLibrary })
    expect(await chooseDevice('auto')).toEqual({ device: 'cuda', cudaLibrary })
    expect(await chooseDevice('cuda:1')).toEqual({ device: 'cuda:1', cudaLibrary })
    expect(await chooseDevice('cpu')).toEqual({ device: 'cpu' })
  })

  test('is the CPU by default where the library is absent, broken or ends its process', async () => {
    const text = join(folder, 'text.so')
    writeFileSync(text, 'text')
    const crash = cudaStandIn(folder, 'crash', '(void)reason; (void)size; std::abort();')
    const absent = join(folder, 'absent.so')
    for (const library of [absent, text, crash]) {
      useLibrary(library)
      const { device, cudaLibrary, note } = await chooseDevice()
      expect({ device, cudaLibrary }).toEqual({ device: 'cpu', cudaLibrary: undefined })
      await using engine = await Engine.create(tinyConfig)
      expect(engine.device).toBe('cpu')
      // There is nothing to say where nobody installed a library.
      expect(engine.deviceNote).toBe(note ?? null)
      if (library === absent) expect(note).toBeUndefined()
      else expect(note).toMatch(new RegExp(`^the GPU is not used: .*${library}`))
      await expect(Engine.create(tinyConfig, { device: 'cuda' })).rejects.toMatchObject({
        code: 'DEVICE_UNAVAILABLE',
        message: expect.stringContaining(library),
      })
    }
  })

  test('of another name is left to the core, which knows them all', async () => {
    expect(await chooseDevice('abacus')).toEqual({ device: 'abacus' })
    await expect(Engine.create(tinyConfig, { device: 'abacus' })).rejects.toThrow('device must be "auto"')
  })
})
