import type { CudaProbe } from '../engine/cuda-probe.js'
import type { GpuFacts } from './gpu.js'
import type { SelfTest } from './self-test.js'

/** What `foretoken doctor --json` prints. Sizes in bytes. */
export interface DoctorReport {
  /** Whether the self-test has passed. */
  ok: boolean
  versions: {
    foretoken: string
    node: string
    /** The newest Node-API of this Node; foretoken uses 9. */
    nodeApi: string | null
    platform: string
    /** Such as `glibc 2.36`; null where it is another one. */
    libc: string | null
  }
  /** The addon: the file that was loaded, or why none was. */
  binary: { file: string; version: string } | { problem: string }
  cpu: {
    model: string
    /** Logical processors of the machine. */
    processors: number
    /** Threads that the engine takes: what affinity and cgroup allow. Null without the addon. */
    threads: number | null
    /** The one in use. Null without the addon. */
    instructionSet: string | null
    instructionSets: string[]
  }
  memory: { total: number; available: number | null }
  gpu: GpuFacts & { cuda: CudaProbe | null }
  selfTest: SelfTest
  advice: string[]
}
