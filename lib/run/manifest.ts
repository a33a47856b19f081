import { arch, cpus, platform, release, totalmem } from 'node:os'
import { parameterCount } from '../algorithm/meter.js'
import type { FileFingerprint } from '../corpus/files.js'
import type { Engine } from '../engine/engine.js'
import { version } from '../version.js'

/** What a run was made with: everything beside the config that decides its bits, and what people ask about later. */
export interface RunManifest {
  /** Of the manifest itself. */
  format: 1
  /** Version of the package. */
  foretoken: string
  /** Version of Node. */
  node: string
  /** Operating system and architecture. */
  platform: string
  /** Name of the processor. */
  cpu: string
  /** Of the machine. */
  memoryBytes: number
  /** `cpu`, `cuda:0`. */
  device: string
  /** Instruction set and threads. */
  deviceDescription: string
  /** Of activations and products. */
  dtype: string
  /** Of weights and optimizer. */
  stateDtype: string
  /** Number of the model's parameters. */
  parameters: number
  /** Of every draw. */
  seed: number
  /** SHA-256 of the tokenizer's rules. */
  tokenizer: string
  /** Of the corpus and its order, with its files. */
  corpus: { fingerprint: string; files: FileFingerprint[] }
  /** SHA-256 of the reward's module, where it is one. */
  reward: string | null
  /** When the run began, and each time it was resumed: the step it went on from, and what was changed. */
  sessions: RunSession[]
}

/** One process that worked on a run. */
export interface RunSession {
  /** When it began, as ISO 8601. */
  started: string
  /** The step it went on from. */
  fromStep: number
  /** What differed from the session before, in words, where that was allowed. */
  changes: string[]
}

/** Describes this machine and what is loaded on it. */
export function describeMachine(
  engine: Engine,
): Pick<
  RunManifest,
  'foretoken' | 'node' | 'platform' | 'cpu' | 'memoryBytes' | 'device' | 'deviceDescription' | 'dtype' | 'parameters'
> {
  return {
    foretoken: version,
    node: process.versions.node,
    platform: `${platform()}-${arch()} ${release()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    memoryBytes: totalmem(),
    device: engine.device,
    deviceDescription: engine.deviceDescription,
    dtype: engine.dtype,
    parameters: parameterCount(engine),
  }
}
