import type { StepPart } from '../algorithm/method.js'

/** Seconds of the parts of a step. A part inside another is not counted in the outer one. */
export class Stopwatch {
  readonly seconds: Record<StepPart, number> = { text: 0, score: 0, rollouts: 0, reward: 0, update: 0 }
  private readonly running: StepPart[] = []
  private since = 0

  /** `now` gives milliseconds. */
  constructor(private readonly now: () => number = () => performance.now()) {}

  async time<T>(part: StepPart, work: () => T | Promise<T>): Promise<T> {
    this.charge()
    this.running.push(part)
    try {
      return await work()
    } finally {
      this.charge()
      this.running.pop()
    }
  }

  /** Gives the time since the last change to the innermost part. */
  private charge(): void {
    const now = this.now()
    const part = this.running.at(-1)
    if (part !== undefined) this.seconds[part] += (now - this.since) / 1000
    this.since = now
  }
}
