import { arch, cpus, freemem, platform, release, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { findCudaLibrary } from '../engine/cuda-library.js'
import { probeCuda } from '../engine/cuda-probe.js'
import { glibcVersion } from '../engine/libc.js'
import { type NativeBinding, nativeBinding } from '../engine/native-binding.js'
import type { EngineOptions } from '../engine/options.js'
import { version } from '../version.js'
import { advice } from './advice.js'
import { examineGpu } from './gpu.js'
import type { DoctorReport } from './report.js'
import { selfTest } from './self-test.js'

/** Looks at everything that foretoken depends on here, and tries it. Never throws: what is wrong is in the report. */
export async function examine(options: EngineOptions = {}): Promise<DoctorReport> {
  const binary = loadBinary()
  const native = 'native' in binary ? binary.native : undefined
  const machine = native && attempt(() => native.machine())
  const [gpu, cuda] = await Promise.all([examineGpu(), native && findCudaLibrary() !== undefined ? probeCuda() : null])
  const tested = await selfTest(options)
  const report = {
    ok: tested.ok,
    versions: {
      foretoken: version,
      node: process.versions.node,
      nodeApi: process.versions.napi ?? null,
      platform: `${platform()}-${arch()} ${release()}`,
      libc: libcName(),
    },
    binary:
      'native' in binary
        ? { file: fileURLToPath(binary.native.file), version: binary.native.version }
        : { problem: binary.problem },
    cpu: {
      model: cpus()[0]?.model.trim() ?? 'unknown',
      processors: cpus().length,
      threads: machine?.threads ?? null,
      instructionSet: machine?.instructionSet ?? null,
      instructionSets: machine?.instructionSets ?? [],
    },
    memory: { total: totalmem(), available: machine?.availableMemory ?? freemem() },
    gpu: { ...gpu, cuda },
    selfTest: tested,
  }
  return { ...report, advice: advice(report) }
}

function loadBinary(): { native: NativeBinding } | { problem: string } {
  try {
    return { native: nativeBinding() }
  } catch (error) {
    return { problem: (error as Error).message }
  }
}

/** FORETOKEN_ISA may ask for what this machine lacks; the self-test then says so. */
function attempt<Value>(call: () => Value): Value | undefined {
  try {
    return call()
  } catch {
    return undefined
  }
}

function libcName(): string | null {
  const glibc = glibcVersion()
  return glibc === undefined ? null : `glibc ${glibc}`
}
