import { evaluationMetrics } from '../evaluate/evaluation-metrics.js'
import type { EvaluationReport } from '../evaluate/types.js'
import type { StepMetrics, TrainEvent } from '../train/types.js'
import { JsonLinesLog, type LogLine } from './json-lines-log.js'
import type { RunDirectory } from './run-directory.js'
import type { SampleLine } from './run-report.js'

/** The two logs of a run. What events bring between steps is written with the step that they belong to. */
export class RunLogs {
  private pending: SampleLine[] = []

  private constructor(
    private readonly metrics: JsonLinesLog,
    private readonly samples: JsonLinesLog,
  ) {}

  /** Opens both, cut to a step for a run that goes on from there. */
  static async open(run: RunDirectory, throughStep?: number): Promise<RunLogs> {
    return new RunLogs(
      await JsonLinesLog.open(run.metrics, throughStep),
      await JsonLinesLog.open(run.samples, throughStep),
    )
  }

  /** Takes the answers of an event. */
  note(event: TrainEvent): void {
    const { step } = event
    if (event.kind === 'samples') {
      this.pending.push(...event.samples.map((sample): SampleLine => ({ step, kind: 'training', ...sample })))
    } else if (event.kind === 'evaluation') {
      this.pending.push(...event.report.samples.map((sample): SampleLine => ({ step, kind: 'evaluation', ...sample })))
    }
  }

  /** Writes a step. */
  async step(metrics: StepMetrics): Promise<void> {
    await this.metrics.append(metrics)
    await this.flushSamples()
  }

  /** Writes an evaluation that belongs to no step: before the first one, or after the text has ended. */
  async evaluation(step: number, report: EvaluationReport): Promise<void> {
    const line: LogLine & Record<string, number> = { step, ...evaluationMetrics(report) }
    await this.metrics.append(line)
    await this.flushSamples()
  }

  /** Brings everything to disk. */
  async sync(): Promise<void> {
    await this.metrics.sync()
    await this.samples.sync()
  }

  async close(): Promise<void> {
    await this.metrics.close()
    await this.samples.close()
  }

  private async flushSamples(): Promise<void> {
    const lines = this.pending
    this.pending = []
    for (const line of lines) await this.samples.append(line)
  }
}
