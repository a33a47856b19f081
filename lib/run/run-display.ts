import type { MemoryItem } from '../engine/results.js'
import type { EvaluationReport } from '../evaluate/types.js'
import type { StepMetrics, TrainEvent } from '../train/types.js'
import { formatCount, formatDuration, ProgressLine, type ProgressStream, TimeLeft } from './progress.js'

/** What a person sees of a run. */
export class RunDisplay {
  private readonly line: ProgressLine
  private readonly left = new TimeLeft()
  private summary = ''
  private lastStep: string | undefined

  constructor(
    private readonly stream: ProgressStream,
    seconds: number,
    private readonly steps: number,
  ) {
    this.line = new ProgressLine(stream, seconds)
  }

  note(text: string): void {
    this.line.note(text)
  }

  /** Shows what a long part of a step is at; on a terminal only. */
  event(event: TrainEvent): void {
    if (event.kind === 'evaluation') this.note(evaluationText(event.step, event.report))
    if (event.kind !== 'progress' || !this.stream.isTTY || event.total <= 0) return
    const share = Math.floor((100 * event.done) / event.total)
    this.line.update(`step ${event.step}/${this.steps} · ${event.part} ${share} %${this.summary}`)
  }

  step(metrics: StepMetrics): void {
    this.left.add(metrics.step_time)
    this.summary = this.figures(metrics)
    this.lastStep = `step ${metrics.step}/${this.steps}${this.summary}`
    this.line.update(this.lastStep)
  }

  /** Leaves the last step standing. */
  end(): void {
    if (this.stream.isTTY && this.lastStep !== undefined) this.line.update(this.lastStep)
    this.lastStep = undefined
    this.line.end()
  }

  private figures(metrics: StepMetrics): string {
    const figures: string[] = []
    const { reward, 'rpt/accuracy': accuracy, 'completions/mean_length': length } = metrics
    if (reward !== undefined) figures.push(`reward ${reward.toFixed(3)}`)
    if (accuracy !== undefined) figures.push(`accuracy ${percent(accuracy)}`)
    if (reward === undefined) figures.push(`loss ${metrics.loss.toFixed(4)}`)
    if (length !== undefined) figures.push(`length ${length.toFixed(0)}`)
    figures.push(`${formatCount(metrics.tokens_per_second ?? 0)} tokens/s`)
    figures.push(`${formatDuration(metrics.step_time)} a step`)
    const left = this.left.forSteps(this.steps - metrics.step)
    if (left !== undefined && metrics.step < this.steps) figures.push(`${formatDuration(left)} left`)
    return figures.map((figure) => ` · ${figure}`).join('')
  }
}

/** What the corpus has left out so far, in words; undefined where nothing was. */
export function skippedText(metrics: StepMetrics): string | undefined {
  const prefix = 'corpus/skipped/'
  const counts = Object.entries(metrics).filter(([name]) => name.startsWith(prefix))
  if (counts.length === 0) return undefined
  const total = counts.reduce((sum, [, count]) => sum + count, 0)
  const reasons = counts.map(([name, count]) => `${name.slice(prefix.length)} ${count}`)
  return `left out of the corpus: ${total} records (${reasons.join(', ')})`
}

/** An evaluation in a line. */
export function evaluationText(step: number, { splits, seconds }: EvaluationReport): string {
  const parts = Object.entries(splits).flatMap(([name, { positions, prediction, reasoning }]) => {
    if (positions === 0) return []
    const reasoned = reasoning ? `, reasoning ${percent(reasoning.accuracy)}` : ''
    return [`${name} (${positions}): prediction ${percent(prediction)}${reasoned}`]
  })
  return `evaluation at step ${step} in ${formatDuration(seconds)} · ${parts.join(' · ')}`
}

/** The engine's memory plan in a line. */
export function memoryText(items: readonly MemoryItem[]): string {
  const total = items.reduce((sum, { bytes }) => sum + bytes, 0)
  const largest = items.filter(({ bytes }) => bytes > 0).map(({ name, bytes }) => `${name} ${gibibytes(bytes)}`)
  return `memory: at most ${gibibytes(total)} (${largest.join(', ')})`
}

function gibibytes(bytes: number): string {
  const gibi = bytes / 2 ** 30
  return gibi >= 0.1 ? `${gibi.toFixed(1)} GiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`
}

function percent(value: number): string {
  return `${(100 * value).toFixed(1)} %`
}
