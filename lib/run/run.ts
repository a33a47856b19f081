import { resolve } from 'node:path'
import { ForetokenError } from '../engine/errors.js'
import { evaluate } from '../evaluate/evaluate.js'
import { type Checkpoint, latestCheckpoint } from '../train/checkpoint.js'
import { Trainer } from '../train/trainer.js'
import type { StepMetrics, TrainEvent, TrainerOptions } from '../train/types.js'
import type { RunConfig } from './config-schema.js'
import { writeTargets } from './evaluation-targets.js'
import { Interruption } from './interruption.js'
import { loadReward } from './load-reward.js'
import { makeMethod } from './make-method.js'
import type { RunManifest } from './manifest.js'
import { copyTokenizer, noDocuments, tokenizerFolder } from './open-parts.js'
import type { ProgressStream } from './progress.js'
import { configChanges, keepsWhenLonger, manifestChanges, refuseChanges } from './resume-check.js'
import { RunDirectory, shown } from './run-directory.js'
import { RunDisplay, skippedText } from './run-display.js'
import { evaluationOptions } from './run-evaluation.js'
import { RunLock } from './run-lock.js'
import { RunLogs } from './run-logs.js'
import { describeRun, openParts, type RunParts } from './run-parts.js'
import { writeRunReport } from './run-report.js'

/** How a run is begun or gone on with. */
export interface RunOptions {
  /** Goes on with the run of the config's output directory, from its newest checkpoint. */
  resume?: boolean
  /** Goes on even where config or data are not those that the run began with. */
  allowChanges?: boolean
  /** Replaces a run that is already in the output directory. */
  overwrite?: boolean
  /** Where progress goes; default standard error. */
  stream?: ProgressStream
  /** Told every step. */
  onStep?: (metrics: StepMetrics) => void
}

/** How a run ended. */
export interface RunResult {
  /** The run directory, absolute. */
  directory: string
  /** Steps done, those of earlier sessions included. */
  step: number
  /** All steps are done, or the text has ended. */
  finished: boolean
  /** The newest checkpoint; none where not a single step was done. */
  checkpoint: string | undefined
  /** Of the last step of this session. */
  metrics: StepMetrics | undefined
  /** What a shell should see: 0, or 130 and 143 where a signal ended the run. */
  exitStatus: number
}

/**
 * Runs a config from beginning to end, or goes on with it: opens model and data, keeps the run directory, trains,
 * evaluates, and ends in good order on the first Ctrl-C.
 *
 * Throws `LOCKED` where another process writes into the output directory, `INVALID_CONFIG` where a run is already
 * there, `DATA_CHANGED` where a run to be resumed has changed, and what the engine, the corpus and the trainer throw.
 */
export async function startRun(config: RunConfig, options: RunOptions = {}): Promise<RunResult> {
  const run = new RunDirectory(resolve(config.output ?? defaultOutput(config)))
  await using _ = await RunLock.acquire(run.path)
  const display = new RunDisplay(options.stream ?? process.stderr, config.logging.progressSeconds, config.steps)
  const from = await findStart(run, config, options, display)
  const before = await run.present()

  const abort = new AbortController()
  const interruption = new Interruption((signal) => {
    display.note(`${signal}: finishing the step and writing a checkpoint; once more ends at once`)
    abort.abort()
  })
  try {
    await using parts = await openParts(config, run, from?.directory, display, abort.signal)
    const manifest = await describeRun(config, parts)
    await beginSession(run, config, manifest, from, options)
    const result = await train(config, run, parts, from, options, display, abort)
    return { ...result, exitStatus: result.finished ? 0 : interruption.exitStatus }
  } catch (error) {
    // A signal before the first step stops whatever is being prepared: there is nothing to save yet.
    if (!interruption.requested || !abort.signal.aborted || !isAbort(error, abort.signal)) throw error
    display.end()
    display.note('stopped before the first step; there is nothing to resume')
    const step = from?.step ?? 0
    const exitStatus = interruption.exitStatus
    return { directory: run.path, step, finished: false, checkpoint: from?.directory, metrics: undefined, exitStatus }
  } finally {
    display.end()
    interruption.dispose()
    // What ended before there was a result must not be in the way of the next try. Judging difficulty takes long, and
    // the next try can use it.
    if (!from && !(await run.hasResults())) await run.clear([...before, run.difficulty])
  }
}

/** The checkpoint to go on from; undefined for a new run. */
async function findStart(
  run: RunDirectory,
  config: RunConfig,
  options: RunOptions,
  display: RunDisplay,
): Promise<Checkpoint | undefined> {
  const exists = await run.hasRun()
  if (!options.resume) {
    if (exists && !options.overwrite) {
      throw new ForetokenError(
        'INVALID_CONFIG',
        `${run.path} already holds a run; go on with it (${resumeCommand(run)}), choose another --output, ` +
          'or replace it with --overwrite',
      )
    }
    if (exists) await run.clear()
    return undefined
  }
  const newest = exists ? await latestCheckpoint(run.checkpoints) : undefined
  if (newest === undefined) {
    // So that a job that is restarted may always say --resume.
    display.note(`${shown(run.path)} has no checkpoint to go on from: starting at the beginning`)
    if (exists) await run.clear()
    return undefined
  }
  if (newest.step >= config.steps) {
    throw new ForetokenError(
      'INVALID_CONFIG',
      `the run in ${run.path} is complete: it has done ${newest.step} of ${config.steps} steps; ${moreSteps(config)}`,
    )
  }
  return newest
}

/** How a run is given more steps. */
function moreSteps({ schedule }: RunConfig): string {
  if (keepsWhenLonger(schedule)) return 'give it more with --steps'
  return (
    'give it more with --steps and --allow-changes, which draws its falling learning rate ' +
    `(schedule.kind ${schedule.kind}) out to the new last step: it goes on higher than it ended`
  )
}

/** Writes config and manifest of a new run, or checks those of one that goes on. */
async function beginSession(
  run: RunDirectory,
  config: RunConfig,
  manifest: RunManifest,
  from: Checkpoint | undefined,
  options: RunOptions,
): Promise<void> {
  let changes: string[] = []
  if (from) {
    const before = await run.readManifest()
    changes = [...configChanges(await run.readConfig(), config), ...manifestChanges(before, manifest)]
    if (!options.allowChanges) refuseChanges(run.path, changes)
    manifest.sessions = before.sessions
  }
  manifest.sessions.push({ started: new Date().toISOString(), fromStep: from?.step ?? 0, changes })
  await run.writeConfig(config)
  await run.writeManifest(manifest)
}

async function train(
  config: RunConfig,
  run: RunDirectory,
  parts: RunParts,
  from: Checkpoint | undefined,
  options: RunOptions,
  display: RunDisplay,
  abort: AbortController,
): Promise<Omit<RunResult, 'exitStatus'>> {
  const logs = await RunLogs.open(run, from?.step)
  const settings = await trainerOptions(config, run, parts, logs)
  // The evaluation that comes after the end of the text belongs to no step's metrics.
  let unlogged: Parameters<RunLogs['evaluation']> | undefined
  const onEvent = (event: TrainEvent) => {
    logs.note(event)
    display.event(event)
    if (event.kind === 'evaluation') unlogged = [event.step, event.report]
  }
  const trainer = new Trainer({ ...settings, signal: abort.signal, onEvent })

  let metrics: StepMetrics | undefined
  try {
    if (from) {
      await trainer.restore(from.directory, { ignoreChanges: options.allowChanges ?? false })
      display.note(`resumed at step ${from.step}`)
    } else {
      await writeTargets(run.targets, parts.targets)
      const { evaluation } = settings
      if (evaluation && config.evaluation.before) {
        const { engine, tokenizer, targets } = parts
        const report = await evaluate(engine, tokenizer, targets, { ...evaluation, signal: abort.signal })
        onEvent({ kind: 'evaluation', step: 0, report })
        await logs.evaluation(0, report)
      }
    }
    for await (const step of trainer) {
      metrics = step
      const evaluated = unlogged?.[0] === step.step
      unlogged = undefined
      await logs.step(step)
      display.step(step)
      options.onStep?.(step)
      if (evaluated && config.logging.report) await writeRunReport(run)
    }
    if (unlogged && unlogged[0] > 0) await logs.evaluation(...unlogged)
  } catch (error) {
    const newest = await latestCheckpoint(run.checkpoints)
    if (metrics && newest) display.note(`the last checkpoint is of step ${newest.step}: ${resumeCommand(run)}`)
    throw error
  } finally {
    await logs.close()
  }
  display.end()
  const skipped = metrics && skippedText(metrics)
  if (skipped !== undefined) display.note(skipped)
  if (config.logging.report && (await run.hasResults())) {
    await writeRunReport(run)
    display.note(`report: ${shown(run.report)}`)
  }
  const checkpoint = (await latestCheckpoint(run.checkpoints))?.directory
  if (trainer.finished) display.note(`done: ${trainer.step} steps · model: ${checkpoint && shown(checkpoint)}`)
  else if (checkpoint) display.note(`stopped after step ${trainer.step}; resume with: ${resumeCommand(run)}`)
  else display.note('stopped before the first step; there is nothing to resume')
  return { directory: run.path, step: trainer.step, finished: trainer.finished, checkpoint, metrics }
}

/** The trainer of a config. */
async function trainerOptions(
  config: RunConfig,
  run: RunDirectory,
  { engine, tokenizer, corpus, traces, difficulty, targets }: RunParts,
  logs: RunLogs,
): Promise<TrainerOptions> {
  const { every } = config.evaluation
  const evaluation =
    targets.length > 0 ? { ...evaluationOptions(config), targets, every: every > 0 ? every : config.steps } : undefined
  const { reward, averageTau } = config.rpt
  const reasons = config.method === 'rpt' && config.evaluation.reasoning
  const bestMetric = config.checkpoint.bestMetric ?? `eval/easy/${reasons ? 'reasoning' : 'prediction'}`
  return {
    engine,
    tokenizer,
    corpus: corpus ?? noDocuments,
    method: makeMethod(config, { ...(difficulty && { difficulty }), ...(traces && { traces }) }),
    ...(config.method === 'rpt' && { reward: await loadReward(reward, config.rpt.rewardOptions) }),
    steps: config.steps,
    ...(config.corpus.epochs !== undefined && { epochs: config.corpus.epochs }),
    onBadDocument: config.corpus.onBadDocument,
    seed: config.seed,
    ...(averageTau !== undefined && config.method === 'rpt' && { averageTau }),
    optimizer: { ...config.optimizer, schedule: config.schedule },
    ...(evaluation && { evaluation }),
    checkpoint: {
      directory: run.checkpoints,
      ...(config.checkpoint.every > 0 && { every: config.checkpoint.every }),
      keepLast: config.checkpoint.keepLast,
      ...(config.checkpoint.keepBest && evaluation && { keepBest: { metric: bestMetric } }),
      ...(config.checkpoint.dtype !== undefined && { save: { dtype: config.checkpoint.dtype } }),
      async addFiles(folder) {
        // A checkpoint must not know more steps than the logs.
        await logs.sync()
        await copyTokenizer(tokenizerFolder(config), folder)
      },
    },
  }
}

function resumeCommand(run: RunDirectory): string {
  return `foretoken train --resume ${shown(run.path)}`
}

function defaultOutput({ method }: RunConfig): string {
  const time = new Date().toISOString().slice(0, 19).replaceAll(':', '').replace('T', '-')
  return `runs/${method}-${time}`
}

function isAbort(error: unknown, signal: AbortSignal): boolean {
  return error === signal.reason || (error as { code?: string } | null)?.code === 'ABORTED'
}
