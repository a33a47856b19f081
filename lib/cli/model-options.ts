import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'
import type { EngineOptions } from '../engine/options.js'
import { RunDirectory } from '../run/run-directory.js'
import { Tokenizer } from '../text/tokenizer.js'
import { latestCheckpoint } from '../train/checkpoint.js'

/** Flags of commands that load a model. */
export interface ModelFlags {
  device?: string
  dtype?: 'float32' | 'bfloat16'
  threads?: number
}

/** Adds them. */
export function addModelOptions(command: Command): Command {
  return command
    .option('--device <name>', 'auto, cpu, cuda, cuda:1 or reference (default: auto)')
    .option('--dtype <name>', 'float32 or bfloat16: of activations and products (default: float32)')
    .option('--threads <count>', 'CPU threads (default: what affinity and cgroup allow)', wholeNumber)
}

/** The engine's options as flags give them. */
export function engineFlags({ device, dtype, threads }: ModelFlags): EngineOptions {
  return { device, dtype, threads }
}

/** Opens the model and its tokenizer. */
export async function openModel(path: string, flags: ModelFlags): Promise<{ engine: Engine; tokenizer: Tokenizer }> {
  const folder = await findModel(path)
  const tokenizer = await Tokenizer.open(folder)
  const engine = await Engine.open(folder, engineFlags(flags))
  await engine.setTokenBytes(tokenizer.bytes)
  return { engine, tokenizer }
}

/** The folder of a model: the one given, or the newest checkpoint of the run given. */
export async function findModel(path: string): Promise<string> {
  const isThere = async (...names: string[]) => (await stat(join(path, ...names)).catch(() => undefined)) !== undefined
  if (await isThere('config.json')) return path
  if (await isThere('manifest.json')) {
    const checkpoint = await latestCheckpoint(new RunDirectory(path).checkpoints)
    if (checkpoint) return checkpoint.directory
    throw new ForetokenError('IO', `the run in ${path} has no checkpoint yet`)
  }
  throw new ForetokenError(
    'IO',
    (await isThere())
      ? `${path} is no model: it has no config.json; give a Hugging Face folder, a checkpoint or a run directory`
      : `${path} does not exist`,
  )
}

/** An option's value as a whole number of at least 0. */
export function wholeNumber(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 0) throw new InvalidArgumentError('It must be a whole number.')
  return value
}

/** An option's value as a number of at least 0. */
export function positiveNumber(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < 0) {
    throw new InvalidArgumentError('It must be a number of at least 0.')
  }
  return value
}
