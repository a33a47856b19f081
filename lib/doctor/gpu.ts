import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { type FoundLibrary, findCudaLibraries } from './cuda-libraries.js'

export interface GpuDevice {
  name: string
  /** Bytes. */
  memory: number
  /** Such as `9.0`. */
  computeCapability: string
}

/** What this machine has of NVIDIA's, as far as it can be seen without opening a library. */
export interface GpuFacts {
  devices: GpuDevice[]
  /** Version of the driver, or null where there is none. */
  driver: string | null
  libraries: FoundLibrary[]
}

export async function examineGpu(): Promise<GpuFacts> {
  const fields = 'name,memory.total,compute_cap,driver_version'
  const [smi, module, libraries] = await Promise.all([
    promisify(execFile)('nvidia-smi', [`--query-gpu=${fields}`, '--format=csv,noheader,nounits'], {
      timeout: 20_000,
    }).catch(() => ({ stdout: '' })),
    readFile('/proc/driver/nvidia/version', 'utf8').catch(() => ''),
    findCudaLibraries(),
  ])
  const { devices, driver } = parseSmi(smi.stdout)
  return { devices, driver: driver ?? /\b(\d{3}\.\d+(?:\.\d+)?)\b/.exec(module)?.[1] ?? null, libraries }
}

/** Reads lines such as `NVIDIA H200, 143771, 9.0, 580.95.05`. */
export function parseSmi(text: string): { devices: GpuDevice[]; driver: string | undefined } {
  const rows = text
    .split('\n')
    .map((line) => line.split(',').map((field) => field.trim()))
    .filter((row) => row.length === 4 && Number.isFinite(Number(row[1])))
  const devices = rows.map(([name, megabytes, computeCapability]) => ({
    name: name!,
    memory: Number(megabytes) * 2 ** 20,
    computeCapability: computeCapability!,
  }))
  return { devices, driver: rows[0]?.[3] }
}
