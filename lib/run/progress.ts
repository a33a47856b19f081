/** Where progress is written: a terminal, a file, or what a test collects. */
export interface ProgressStream {
  /** Takes a line, or a part of one. */
  write(text: string): unknown
  /** Whether a line can be overwritten. */
  readonly isTTY?: boolean
  /** Width of a terminal. */
  readonly columns?: number
}

/**
 * One line that says how far the run is: rewritten in place on a terminal; elsewhere plain lines, at most one every
 * `seconds`.
 */
export class ProgressLine {
  private shown = ''
  private lastPlain = Number.NEGATIVE_INFINITY
  private pending = ''

  constructor(
    private readonly stream: ProgressStream,
    private readonly seconds: number,
    private readonly now: () => number = () => performance.now() / 1000,
  ) {}

  /** Shows the state. */
  update(text: string): void {
    if (this.stream.isTTY) {
      // Some terminals say 0. One column stays free: a full line would wrap and could not be rewritten.
      const line = text.slice(0, Math.max(20, (this.stream.columns || 80) - 1))
      this.stream.write(`\r${line}${' '.repeat(Math.max(0, this.shown.length - line.length))}`)
      this.shown = line
      return
    }
    this.pending = text
    if (this.now() - this.lastPlain < this.seconds) return
    this.flush()
  }

  /** Writes a line that stays. */
  note(text: string): void {
    if (this.stream.isTTY && this.shown !== '') {
      this.stream.write(`\r${' '.repeat(this.shown.length)}\r${text}\n${this.shown}`)
      return
    }
    this.stream.write(`${text}\n`)
  }

  /** Leaves the last state standing and goes to a new line. */
  end(): void {
    if (this.stream.isTTY && this.shown !== '') this.stream.write('\n')
    else this.flush()
    this.shown = ''
  }

  private flush(): void {
    if (this.pending === '') return
    this.stream.write(`${this.pending}\n`)
    this.pending = ''
    this.lastPlain = this.now()
  }
}

/** How long the rest will take: the mean of recent steps, so that a slow first one is forgotten. */
export class TimeLeft {
  private readonly recent: number[] = []

  constructor(private readonly window = 20) {}

  /** Counts a step of so many seconds. */
  add(seconds: number): void {
    this.recent.push(seconds)
    if (this.recent.length > this.window) this.recent.shift()
  }

  /** Seconds for so many more steps, or undefined before the first. */
  forSteps(steps: number): number | undefined {
    if (this.recent.length === 0) return undefined
    return (this.recent.reduce((sum, seconds) => sum + seconds, 0) / this.recent.length) * steps
  }
}

/** A span of time in the two units that matter: `41 s`, `3 min 05 s`, `2 h 10 min`, `4 d 3 h`. */
export function formatDuration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`
  const minutes = Math.round(whole / 60)
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`
  const hours = Math.round(minutes / 60)
  return `${Math.floor(hours / 24)} d ${hours % 24} h`
}

/** A count in short: `950`, `12.3k`, `4.56M`. */
export function formatCount(count: number): string {
  if (Math.abs(count) < 1000) return String(Math.round(count))
  for (const [size, unit] of units) {
    if (Math.abs(count) >= size) return `${(count / size).toPrecision(3)}${unit}`
  }
  return String(count)
}

const units: [number, string][] = [
  [1e18, 'E'],
  [1e15, 'P'],
  [1e12, 'T'],
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'k'],
]

function pad(number: number): string {
  return String(number).padStart(2, '0')
}
