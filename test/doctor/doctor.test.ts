import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { advice } from '../../lib/doctor/advice.js'
import { findCudaLibraries, libraryFolders } from '../../lib/doctor/cuda-libraries.js'
import { examine } from '../../lib/doctor/examine.js'
import { parseSmi } from '../../lib/doctor/gpu.js'
import type { DoctorReport } from '../../lib/doctor/report.js'
import { selfTest } from '../../lib/doctor/self-test.js'
import { Engine } from '../../lib/engine/engine.js'

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'foretoken-doctor-'))
})
afterAll(() => rmSync(folder, { recursive: true }))

function touch(...names: string[]): string {
  const file = join(folder, ...names)
  mkdirSync(join(file, '..'), { recursive: true })
  writeFileSync(file, '')
  return file
}

/** Of master weights, and of gradients and optimizer by the memory plan of a model. */
async function bytesPerParameter(stateDtype: 'float32' | 'bfloat16'): Promise<number> {
  const config = {
    ...{ model_type: 'llama', vocab_size: 64, hidden_size: 64, intermediate_size: 64, num_hidden_layers: 1 },
    ...{ num_attention_heads: 1, num_key_value_heads: 1, max_position_embeddings: 64 },
  }
  await using engine = await Engine.create(config, { device: 'cpu', stateDtype })
  const parameters = engine.parameters().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
  const plan = await engine.memoryPlan()
  const bytes = (purpose: string) => plan.find(({ name }) => name === purpose)!.bytes
  // The plan counts weights together with their copies laid out for products.
  const master = { float32: 4, bfloat16: 2 }[stateDtype]
  return Math.round(master + (bytes('gradients') + bytes('optimizer')) / parameters)
}

/** An engine whose result of one verb is changed on its way out. */
function tampered<Verb extends 'score' | 'sample' | 'accumulate' | 'step'>(
  verb: Verb,
  change: (result: Awaited<ReturnType<Engine[Verb]>>) => void,
) {
  return async (...args: Parameters<typeof Engine.create>) => {
    const engine = await Engine.create(...args)
    const original = engine[verb].bind(engine) as (...rest: unknown[]) => Promise<Awaited<ReturnType<Engine[Verb]>>>
    const value = async (...rest: unknown[]) => {
      const result = await original(...rest)
      change(result)
      return result
    }
    return Object.defineProperty(engine, verb, { value })
  }
}

function failing({ checks }: { checks: { name: string; ok: boolean }[] }): string[] {
  return checks.filter(({ ok }) => !ok).map(({ name }) => name.replace(/^float32: |^bfloat16: /, ''))
}

describe('the self-test', () => {
  test('passes on the reference device as on the CPU', async () => {
    for (const device of ['cpu', 'reference']) {
      const result = await selfTest({ device })
      expect(result, JSON.stringify(result)).toMatchObject({ ok: true })
      expect(result.checks).toHaveLength(10)
      expect(result.device).toMatch(device === 'cpu' ? /^cpu, / : /double precision/)
    }
  })

  test('notices a single bit of one log-prob', async () => {
    const result = await selfTest(
      { device: 'cpu' },
      tampered('score', ({ logprobs }) => {
        new Int32Array(logprobs.buffer, logprobs.byteOffset)[100]! ^= 1
      }),
    )
    expect(result.ok).toBe(false)
    expect(failing(result)).toEqual(['score gives what sample gave', 'score gives what sample gave'])
  })

  test('notices rollouts that are missing, a ratio beside 1, gradients that are not finite', async () => {
    const short = await selfTest(
      {},
      tampered('sample', ({ rollouts }) => void rollouts.pop()),
    )
    expect(failing(short)).toContain('sample')
    const off = await selfTest(
      {},
      tampered('accumulate', ({ terms }) => {
        terms[0]!.ratioMax = 1.0000001
      }),
    )
    expect(failing(off)).toEqual(Array(2).fill('accumulate sees the policy that sampled'))
    const infinite = await selfTest(
      {},
      tampered('step', (result) => {
        result.gradNorm = Number.POSITIVE_INFINITY
      }),
    )
    expect(failing(infinite)).toEqual(['step', 'step'])
  })

  test('reports an engine that cannot be opened', async () => {
    const result = await selfTest({ device: 'abacus' })
    expect(result).toMatchObject({ ok: false, device: null })
    expect(result.checks[0]!.detail).toContain('INVALID_ARGUMENT: device must be')
  })
})

describe('GPUs and their libraries', () => {
  test('are read from nvidia-smi', () => {
    const text = 'NVIDIA H200, 143771, 9.0, 580.95.05\nNVIDIA H200, 143771, 9.0, 580.95.05\n'
    expect(parseSmi(text)).toEqual({
      devices: Array(2).fill({ name: 'NVIDIA H200', memory: 143771 * 2 ** 20, computeCapability: '9.0' }),
      driver: '580.95.05',
    })
    expect(parseSmi('NVIDIA-SMI has failed because it could not talk to the driver\n')).toEqual({ devices: [] })
  })

  test('are found in the folders of toolkits, the linker and Python packages, those that are named first', async () => {
    const venv = touch('venv', 'lib', 'python3.12', 'site-packages', 'nvidia', 'cublas', 'lib', 'libcublasLt.so.13')
    const toolkit = touch('cuda', 'lib64', 'libcublasLt.so.12')
    const driver = touch('driver', 'libcuda.so.1')
    touch('driver', 'libcublasLt.so.12.8.4.1')
    touch('driver', 'libcublasLt.so.11')
    const own = touch('own', 'libcublasLt.so.13')
    const folders = await libraryFolders({
      LD_LIBRARY_PATH: `${join(folder, 'driver')}:`,
      CUDA_PATH: join(folder, 'cuda'),
      VIRTUAL_ENV: join(folder, 'venv'),
      FORETOKEN_CUDA_LIBRARIES: join(folder, 'own'),
    })
    const ours = folders.filter((each) => each.startsWith(folder))
    expect(ours).toEqual([own, toolkit, driver, venv].map((file) => dirname(file)))
    const product = (path: string) => ({ purpose: 'matrix products', name: basename(path), path })
    expect(await findCudaLibraries(ours)).toEqual([
      { purpose: 'driver', name: 'libcuda.so.1', path: driver },
      ...[own, toolkit, venv].map(product),
    ])
    expect(await findCudaLibraries([join(folder, 'nowhere')])).toEqual([
      { purpose: 'driver', name: 'libcuda.so.1', path: null },
      { purpose: 'matrix products', name: 'libcublasLt.so', path: null },
    ])
  })
})

describe('the advice', () => {
  let here: DoctorReport
  beforeAll(async () => {
    here = await examine({ device: 'cpu' })
  })

  test('says of memory what the engine plans', async () => {
    const { memory } = here
    const [words] = advice({ ...here, memory: { ...memory, available: 0 } }).filter((each) => each.includes('GiB'))
    const [float32, bfloat16] = await Promise.all((['float32', 'bfloat16'] as const).map(bytesPerParameter))
    expect(words).toContain(
      `Training takes ${float32} bytes per parameter and more (${bfloat16} with stateDtype bfloat16)`,
    )
  })

  test('of a machine with a GPU in use is none', () => {
    const cpu = {
      ...here.cpu,
      instructionSet: 'avx2',
      instructionSets: ['portable', 'avx2'],
      threads: 8,
      processors: 8,
    }
    const memory = { total: 2 ** 35, available: 2 ** 35 }
    const cuda = { ok: true, reason: 'NVIDIA H200', devices: 1, library: '/x/libforetoken_cuda.so' }
    const device = { name: 'NVIDIA H200', memory: 2 ** 37, computeCapability: '9.0' }
    const libraries = [{ purpose: 'matrix products' as const, name: 'libcublasLt.so.13', path: '/y' }]
    const report = { ...here, cpu, memory, gpu: { devices: [device], driver: '580', libraries, cuda } }
    expect(advice(report)).toEqual([])

    const says = (change: Partial<DoctorReport>, words: string) =>
      expect(advice({ ...report, ...change })).toEqual([expect.stringContaining(words)])
    says({ cpu: { ...cpu, threads: 2 } }, 'takes 2 of 8 processors')
    says({ cpu: { ...cpu, instructionSet: 'portable' } }, 'asks for the kernels of portable; avx2 is there')
    expect(advice({ ...report, cpu: { ...cpu, instructionSet: 'portable', instructionSets: ['portable'] } })).toEqual(
      [],
    )
    says({ memory: { total: 2 ** 33, available: 2 ** 30 } }, 'Less than 2 GiB')
    says({ selfTest: { ...here.selfTest, ok: false } }, 'The self-test failed')
    says({ selfTest: { ...here.selfTest, ok: false, device: null } }, 'Nothing could be computed')
    says({ binary: { file: 'x', version: '0.0.1' } }, 'native core is of version 0.0.1')
    says({ binary: { problem: 'nothing there' } }, 'nothing there')
    says({ gpu: { ...report.gpu, cuda: null } }, 'CUDA library is not in this package')
    says({ gpu: { ...report.gpu, cuda: { ...cuda, ok: false, reason: 'too old' } } }, 'cannot be used: too old')
    const lacking = [{ ...libraries[0]!, path: null }]
    says({ gpu: { ...report.gpu, libraries: lacking } }, 'libcublasLt was not found')
    says({ gpu: { ...report.gpu, devices: [], driver: null } }, 'no NVIDIA driver')
  })
})
