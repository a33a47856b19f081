import { mkdir, readFile, rm, stat } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { ForetokenError } from '../engine/errors.js'
import { latestCheckpoint } from '../train/checkpoint.js'
import type { RunConfig } from './config-schema.js'
import { configYaml, readConfigSource, resolveConfig } from './load-config.js'
import type { RunManifest } from './manifest.js'
import { writeAtomically } from './write-atomically.js'

/** The folder of a run and the names in it. */
export class RunDirectory {
  constructor(
    /** Where it is. */
    readonly path: string,
  ) {}

  /** The config with every default filled in. */
  get config(): string {
    return join(this.path, 'config.yaml')
  }
  /** What the run was made with: `RunManifest`. */
  get manifest(): string {
    return join(this.path, 'manifest.json')
  }
  /** One line per step: `StepMetrics`. */
  get metrics(): string {
    return join(this.path, 'metrics.jsonl')
  }
  /** One line per answer: `SampleLine`. */
  get samples(): string {
    return join(this.path, 'samples.jsonl')
  }
  /** The questions of the run's evaluations. */
  get targets(): string {
    return join(this.path, 'evaluation.jsonl')
  }
  /** Entropies by another model, where one judges difficulty. */
  get difficulty(): string {
    return join(this.path, 'difficulty.index')
  }
  /** Holds a folder `step-N` for each checkpoint. */
  get checkpoints(): string {
    return join(this.path, 'checkpoints')
  }
  /** Charts and tables in one HTML file. */
  get report(): string {
    return join(this.path, 'report.html')
  }

  /** All that a run may hold. The manifest is last: whatever is removed in this order is a run until then. */
  private get parts(): string[] {
    const { config, manifest, metrics, samples, targets, difficulty, checkpoints, report } = this
    return [config, metrics, samples, targets, difficulty, checkpoints, report, manifest]
  }

  /** Makes the folder. */
  async create(): Promise<void> {
    await mkdir(this.path, { recursive: true })
  }

  /** Removes a run but for the paths to keep, and nothing else that may lie beside it. */
  async clear(keep: readonly string[] = []): Promise<void> {
    for (const path of this.parts) if (!keep.includes(path)) await rm(path, { recursive: true, force: true })
  }

  /** The paths of a run that are there. */
  async present(): Promise<string[]> {
    const found = await Promise.all(this.parts.map((path) => stat(path).catch(() => undefined)))
    return this.parts.filter((_, i) => found[i] !== undefined)
  }

  /** Whether there is anything to keep: an evaluation, a step, a checkpoint. */
  async hasResults(): Promise<boolean> {
    const logged = await stat(this.metrics).catch(() => undefined)
    return (logged?.size ?? 0) > 0 || (await latestCheckpoint(this.checkpoints)) !== undefined
  }

  /** Whether a run has begun here. */
  async hasRun(): Promise<boolean> {
    return (await stat(this.manifest).catch(() => undefined)) !== undefined
  }

  /** Reads the config. Throws `IO` where there is none, `INVALID_CONFIG` where it was spoilt. */
  async readConfig(): Promise<RunConfig> {
    return resolveConfig({ source: await readConfigSource(this.config) })
  }

  /** Replaces the config at once and as a whole. */
  async writeConfig(config: RunConfig): Promise<void> {
    await writeAtomically(this.config, configYaml(config))
  }

  /** Reads the manifest. Throws `IO` where the folder holds no run. */
  async readManifest(): Promise<RunManifest> {
    try {
      return JSON.parse(await readFile(this.manifest, 'utf8')) as RunManifest
    } catch (cause) {
      throw new ForetokenError('IO', `${this.path} holds no run: ${this.manifest} cannot be read`, { cause })
    }
  }

  /** Replaces the manifest at once and as a whole. */
  async writeManifest(manifest: RunManifest): Promise<void> {
    await writeAtomically(this.manifest, `${JSON.stringify(manifest, undefined, 2)}\n`)
  }
}

/** A path as short as possible. */
export function shown(path: string): string {
  const short = relative(process.cwd(), path)
  return short === '' || short.startsWith('..') ? path : short
}
