import { mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'
import type { CheckpointOptions, TrainerState } from './types.js'

/** A complete checkpoint on disk: a Hugging Face model folder with `training/` and `trainer.json` in it. */
export interface Checkpoint {
  /** Its folder. */
  directory: string
  /** The step after which it was written. */
  step: number
}

/** All complete checkpoints of a folder, by step; none where there is no folder. */
export async function listCheckpoints(directory: string): Promise<Checkpoint[]> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw new ForetokenError('IO', `${directory} cannot be read: ${error.message}`, { cause: error })
  })
  return names
    .flatMap((name) => {
      const step = /^step-(\d+)$/.exec(name)
      return step ? [{ directory: join(directory, name), step: Number(step[1]) }] : []
    })
    .sort((a, b) => a.step - b.step)
}

/** The newest complete checkpoint of a folder. */
export async function latestCheckpoint(directory: string): Promise<Checkpoint | undefined> {
  return (await listCheckpoints(directory)).at(-1)
}

/** What a checkpoint says beside its tensors. Throws `IO` or `INVALID_CHECKPOINT`. */
export async function readTrainerState(directory: string): Promise<TrainerState> {
  const file = join(directory, stateFile)
  const text = await readFile(file, 'utf8').catch((cause: Error) => {
    throw new ForetokenError('IO', `${file} cannot be read: ${cause.message}; it is no checkpoint of a run`, { cause })
  })
  let state: TrainerState
  try {
    state = JSON.parse(text) as TrainerState
  } catch (cause) {
    throw new ForetokenError('INVALID_CHECKPOINT', `${file} is not valid JSON: ${(cause as Error).message}`, { cause })
  }
  if (state.format !== 1 || !Number.isInteger(state.step)) {
    throw new ForetokenError('INVALID_CHECKPOINT', `${file} was written by another version of foretoken`)
  }
  return state
}

/**
 * Writes `step-N`. It appears under its name when it is whole: until then it is a `.partial` folder, which the next
 * checkpoint clears away.
 */
export async function writeCheckpoint(
  engine: Engine,
  state: TrainerState,
  options: CheckpointOptions,
): Promise<Checkpoint> {
  const { directory } = options
  const name = `step-${state.step}`
  const target = join(directory, name)
  // Everything that a crash can leave behind lies in one folder.
  const scratch = join(directory, `${name}.partial`)
  const partial = join(scratch, name)
  try {
    await mkdir(directory, { recursive: true })
    for (const left of await readdir(directory)) {
      if (/^step-\d+\.partial$/.test(left)) await rm(join(directory, left), { recursive: true })
    }
    await mkdir(scratch)
    await engine.save(partial, options.save)
    await engine.saveTrainingState(join(partial, trainingFolder))
    await options.addFiles?.(partial)
    await writeDurably(join(partial, stateFile), `${JSON.stringify(state, null, 1)}\n`)
    await syncDirectory(partial)
    // A run that was taken back to an earlier step comes by this one again.
    await rename(target, join(scratch, 'old')).catch(ignoreMissing)
    await rename(partial, target)
    await syncDirectory(directory)
    await rm(scratch, { recursive: true })
  } catch (cause) {
    if (cause instanceof ForetokenError) throw cause
    throw new ForetokenError('IO', `checkpoint ${target} cannot be written: ${(cause as Error).message}`, { cause })
  }
  return { directory: target, step: state.step }
}

/** Removes all but the newest checkpoints and the steps to keep. */
export async function pruneCheckpoints(directory: string, keepLast: number, keep: readonly number[]): Promise<void> {
  const checkpoints = await listCheckpoints(directory)
  const old = checkpoints.slice(0, Math.max(0, checkpoints.length - keepLast))
  for (const checkpoint of old) {
    if (!keep.includes(checkpoint.step)) await rm(checkpoint.directory, { recursive: true })
  }
}

async function writeDurably(path: string, text: string): Promise<void> {
  await writeFile(path, text, { flush: true })
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}

const stateFile = 'trainer.json'
/** Where in a checkpoint the engine's training state is. */
export const trainingFolder = 'training'
