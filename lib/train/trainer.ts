import { join } from 'node:path'
import { DocumentFeed } from '../algorithm/document-feed.js'
import { Meter, meteredEngine, parameterCount } from '../algorithm/meter.js'
import type { Method, StepPart, StepPlan } from '../algorithm/method.js'
import { requirePositive } from '../algorithm/require-positive.js'
import { rpt } from '../algorithm/rpt.js'
import { learningRateFactor } from '../algorithm/schedule.js'
import type { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'
import type { AccumulateResult } from '../engine/results.js'
import { evaluate } from '../evaluate/evaluate.js'
import { evaluationMetrics } from '../evaluate/evaluation-metrics.js'
import type { EvaluationReport } from '../evaluate/types.js'
import { prefixMatchReward } from '../reward/prefix-match.js'
import type { Reward } from '../reward/reward.js'
import { type Checkpoint, pruneCheckpoints, readTrainerState, trainingFolder, writeCheckpoint } from './checkpoint.js'
import { isNonFinite, nonFiniteError } from './non-finite.js'
import { asJson, describeDifferences } from './settings.js'
import { Stopwatch } from './stopwatch.js'
import type { StepMetrics, TrainEvent, TrainerOptions, TrainerState } from './types.js'
import { updateMetrics } from './update-metrics.js'

/**
 * A training run: steps of a method on a corpus, with checkpoints and evaluations in between.
 *
 * ```ts
 * for await (const step of new Trainer({ engine, tokenizer, corpus, method: rpt(), steps: 1000 })) {
 *   console.log(step.step, step.reward)
 * }
 * ```
 *
 * Everything random derives from the seed, so two runs are alike to the bit, and so is one that was interrupted and
 * restored. A step's checkpoint is written when its metrics have been taken.
 */
export class Trainer implements AsyncIterable<StepMetrics> {
  /** What is learned, and how. */
  readonly method: Method
  private readonly feed: DocumentFeed
  private readonly parameters: number
  private readonly reward: Reward
  private readonly averageTau: number | undefined
  private readonly seed: number
  private done = 0
  private totals = { tokens: 0, flops: 0 }
  private best: TrainerState['best'] = null
  private started = false
  private exhausted = false
  private savedStep = -1
  private evaluatedStep = -1

  /** Throws `INVALID_CONFIG` for options that cannot work. */
  constructor(private readonly options: TrainerOptions) {
    const { engine, tokenizer, corpus, part, epochs, onBadDocument, evaluation, checkpoint } = options
    requirePositive('steps', options.steps)
    if (evaluation) requirePositive('evaluation.every', evaluation.every)
    if (checkpoint?.every !== undefined) requirePositive('checkpoint.every', checkpoint.every)
    if (checkpoint?.keepLast !== undefined) requirePositive('checkpoint.keepLast', checkpoint.keepLast)
    this.method = options.method ?? rpt()
    this.reward = options.reward ?? prefixMatchReward
    this.averageTau = options.averageTau ?? (this.reward.needs === 'average' ? defaultAverageTau : undefined)
    this.seed = options.seed ?? 0
    this.parameters = parameterCount(engine)
    this.feed = new DocumentFeed({
      tokenizer,
      corpus,
      ...(part !== undefined && { part }),
      ...(epochs !== undefined && { epochs }),
      ...(onBadDocument !== undefined && { onBadDocument }),
      ...this.method.documents?.(tokenizer),
    })
  }

  /** Steps done, those of the restored run included. */
  get step(): number {
    return this.done
  }

  /** Whether all steps are done or no text is left. */
  get finished(): boolean {
    return this.exhausted || this.done >= this.options.steps
  }

  /**
   * Goes to where a checkpoint was taken: weights, optimizer, place in the corpus, method. Call it before the first
   * step. Throws `DATA_CHANGED` saying what differs when corpus, tokenizer, seed, method or reward are not those of the
   * checkpoint, unless `ignoreChanges`.
   */
  async restore(directory: string, { ignoreChanges = false }: { ignoreChanges?: boolean } = {}): Promise<void> {
    const state = await readTrainerState(directory)
    const changes = describeDifferences(this.identityOf(state), this.identityOf(this.state()))
    if (changes.length > 0 && !ignoreChanges) {
      throw new ForetokenError(
        'DATA_CHANGED',
        `${directory} is of a run with other settings (${changes.join('; ')}); restore them, start a new run, or ` +
          'ignore the changes',
      )
    }
    await this.options.engine.loadTrainingState(join(directory, trainingFolder))
    await this.prepareEngine(true)
    await this.feed.restore(state.corpus.feed, { ignoreChanges })
    if (state.method.state !== null && state.method.name === this.method.name) {
      await this.method.restore?.(state.method.state)
    }
    this.done = state.step
    this.totals = { ...state.totals }
    this.best = state.best
    this.started = true
    this.savedStep = state.step
    // Its evaluation, where it had one, was reported with the step.
    this.evaluatedStep = state.step
  }

  /** Does the steps that are left, one at each turn; writes checkpoints after the steps that are due. */
  async *[Symbol.asyncIterator](): AsyncGenerator<StepMetrics, void, undefined> {
    const { signal } = this.options
    try {
      while (!this.finished && !signal?.aborted) {
        const metrics = await this.next()
        if (!metrics) break
        yield metrics
        await this.checkpointAfter(metrics)
      }
      if (this.exhausted && this.options.evaluation && this.evaluatedStep !== this.done) await this.evaluate()
      if (this.options.checkpoint && this.savedStep !== this.done && this.done > 0) await this.saveCheckpoint()
    } finally {
      await this.feed.close()
    }
  }

  /** One step, without checkpoints. Undefined when no text is left. */
  async next(): Promise<StepMetrics | undefined> {
    await this.start()
    const begin = performance.now()
    const stopwatch = new Stopwatch()
    const meter = new Meter(this.parameters)
    const plan = await this.collect(stopwatch, meter)
    if (!plan) {
      this.exhausted = true
      return undefined
    }
    const { optimizer = {}, steps } = this.options
    const { learningRate = 1e-6, schedule = {} } = optimizer
    const rate = learningRate * learningRateFactor(schedule, this.done, steps)
    const norms = await stopwatch.time('update', () => this.update(plan, rate, meter))
    this.done += 1
    this.totals.tokens += meter.tokens
    this.totals.flops += meter.flops
    const seconds = (performance.now() - begin) / 1000
    const metrics: StepMetrics = {
      step: this.done,
      epoch: this.feed.epoch,
      // Without an update there is no loss: nothing was minimised.
      loss: 0,
      ...plan.metrics,
      ...norms.metrics,
      grad_norm: norms.gradNorm,
      learning_rate: rate,
      updates: plan.updates.length,
      num_tokens: this.totals.tokens,
      'tokens/trained': meter.trained,
      'tokens/generated': meter.generated,
      'tokens/prefilled': meter.prefilled,
      'tokens/scored': meter.scored,
      flops: meter.flops,
      total_flops: this.totals.flops,
      step_time: seconds,
      tokens_per_second: meter.tokens / seconds,
    }
    for (const [part, time] of Object.entries(stopwatch.seconds)) metrics[`seconds/${part}`] = time
    for (const [reason, count] of Object.entries(this.feed.leftOut)) {
      if (count > 0) metrics[`corpus/skipped/${reason}`] = count
    }
    if (plan.samples && plan.samples.length > 0) {
      this.tell({ kind: 'samples', step: this.done, samples: plan.samples })
    }
    const { evaluation } = this.options
    if (evaluation && (this.done % evaluation.every === 0 || this.done === steps)) {
      Object.assign(metrics, evaluationMetrics(await this.evaluate()))
    }
    return metrics
  }

  /** Evaluates the weights as they are, on the targets of the options. */
  async evaluate(): Promise<EvaluationReport> {
    const { engine, tokenizer, evaluation } = this.options
    if (!evaluation) {
      throw new ForetokenError('INVALID_CONFIG', 'the trainer has no evaluation: give it targets and how often')
    }
    const step = this.done
    const report = await evaluate(engine, tokenizer, evaluation.targets, {
      ...evaluation,
      onProgress: (done, total) => this.tell({ kind: 'progress', step, part: 'evaluation', done, total }),
    })
    this.evaluatedStep = step
    this.tell({ kind: 'evaluation', step, report })
    return report
  }

  /** Writes a checkpoint of the state as it is, and removes those that are not to be kept. */
  async saveCheckpoint(): Promise<Checkpoint> {
    const { checkpoint, engine } = this.options
    if (!checkpoint) throw new ForetokenError('INVALID_CONFIG', 'the trainer has no checkpoint directory')
    this.tell({ kind: 'progress', step: this.done, part: 'checkpoint', done: 0, total: 1 })
    const written = await writeCheckpoint(engine, this.state(), checkpoint)
    this.savedStep = this.done
    const keep = [this.done, ...(this.best ? [this.best.step] : [])]
    await pruneCheckpoints(checkpoint.directory, checkpoint.keepLast ?? 2, keep)
    const best = this.best?.step === this.done
    this.tell({ kind: 'checkpoint', step: this.done, directory: written.directory, best })
    return written
  }

  /** What a checkpoint holds beside the tensors. */
  state(): TrainerState {
    return {
      format: 1,
      step: this.done,
      seed: this.seed,
      method: {
        name: this.method.name,
        settings: asJson(this.method.settings),
        state: asJson(this.method.state?.()),
      },
      corpus: { fingerprint: this.options.corpus.fingerprint, feed: asJson(this.feed.state()) },
      tokenizer: this.options.tokenizer.fingerprint,
      reward: this.reward.name,
      totals: { ...this.totals },
      best: this.best,
    }
  }

  private identityOf(state: TrainerState): unknown {
    return {
      seed: state.seed,
      method: { name: state.method.name, settings: state.method.settings },
      corpus: state.corpus.fingerprint,
      tokenizer: state.tokenizer,
      reward: state.reward,
    }
  }

  private async start(): Promise<void> {
    if (this.started) return
    this.started = true
    await this.prepareEngine(false)
  }

  /** Gives the engine what steps need beside the weights; copies of them that a checkpoint has brought stay. */
  private async prepareEngine(restored: boolean): Promise<void> {
    const { engine, tokenizer } = this.options
    const lacks = async (kind: 'reference' | 'average') => !restored || !(await holdsWeights(engine, kind))
    await engine.setTokenBytes(tokenizer.bytes)
    if ((this.method.needsReference || this.reward.needs === 'reference') && (await lacks('reference'))) {
      await engine.keepReference()
    }
    if (this.averageTau !== undefined && (await lacks('average'))) await engine.updateAverage(this.averageTau)
  }

  private collect(stopwatch: Stopwatch, meter: Meter): Promise<StepPlan | undefined> {
    const { engine, tokenizer } = this.options
    return this.method.collect({
      step: this.done,
      engine: meteredEngine(engine, meter),
      tokenizer,
      documents: this.feed,
      reward: this.reward,
      seed: this.seed,
      time: (part, work) => stopwatch.time(part, work),
      progress: (part, done, total) => this.progress(part, done, total),
    })
  }

  private async update(
    plan: StepPlan,
    learningRate: number,
    meter: Meter,
  ): Promise<{ gradNorm: number; metrics: Record<string, number> }> {
    const { engine, optimizer = {} } = this.options
    const results: { update: StepPlan['updates'][number]; result: AccumulateResult }[] = []
    let gradNorms = 0
    try {
      for (const [i, update] of plan.updates.entries()) {
        const result = await engine.accumulate(update.forest, Object.values(update.terms), {
          temperature: update.temperature,
          onProgress: (done, total) => this.progress('update', i * total + done, plan.updates.length * total),
        })
        meter.trained += result.tokens
        if (!Number.isFinite(result.loss)) {
          throw new ForetokenError('NON_FINITE', `the loss is ${result.loss}; no weight was changed`)
        }
        const { gradNorm } = await engine.step({
          learningRate,
          betas: optimizer.betas,
          epsilon: optimizer.epsilon,
          weightDecay: optimizer.weightDecay ?? 0.01,
          maxGradNorm: optimizer.maxGradNorm ?? 1,
          decayAll: optimizer.decayAll,
        })
        gradNorms += gradNorm
        results.push({ update, result })
        if (this.averageTau !== undefined) await engine.updateAverage(this.averageTau)
      }
    } catch (error) {
      throw isNonFinite(error) ? await nonFiniteError(engine, this.done + 1, error) : error
    }
    return { gradNorm: results.length > 0 ? gradNorms / results.length : 0, metrics: updateMetrics(results) }
  }

  /** A checkpoint is due every so many steps, and when an evaluation was the best so far. */
  private async checkpointAfter(metrics: StepMetrics): Promise<void> {
    const { checkpoint } = this.options
    if (!checkpoint) return
    const { every, keepBest } = checkpoint
    const regular = every !== undefined && this.done % every === 0
    const evaluated = keepBest?.metric.startsWith('eval/') === true
    const value = keepBest && (regular || evaluated || this.finished) ? metrics[keepBest.metric] : undefined
    const sign = keepBest?.mode === 'min' ? -1 : 1
    const better = value !== undefined && (this.best === null || sign * value > sign * this.best.value)
    if (better) this.best = { step: this.done, metric: keepBest!.metric, value }
    if (regular || (better && evaluated) || this.finished) await this.saveCheckpoint()
  }

  private progress(part: StepPart, done: number, total: number): void {
    this.tell({ kind: 'progress', step: this.done + 1, part, done, total })
  }

  private tell(event: TrainEvent): void {
    this.options.onEvent?.(event)
  }
}

/** Whether the engine has a copy of the weights of this kind. */
async function holdsWeights(engine: Engine, kind: 'reference' | 'average'): Promise<boolean> {
  try {
    await engine.read(engine.parameters().at(-1)!.name, kind)
    return true
  } catch (error) {
    if ((error as ForetokenError).code === 'INVALID_ARGUMENT') return false
    throw error
  }
}

/** RLP's (arXiv 2510.01265). */
const defaultAverageTau = 0.999
