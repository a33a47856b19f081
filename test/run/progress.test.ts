import { describe, expect, it } from 'vitest'
import { formatCount, formatDuration, ProgressLine, TimeLeft } from '../../lib/run/progress.js'

/** A terminal of so many columns that remembers what stands on its lines. */
class Terminal {
  readonly isTTY = true
  readonly lines = ['']
  constructor(readonly columns: number) {}
  write(text: string): void {
    for (const part of text.split(/(\r|\n)/)) {
      if (part === '\r') this.at = 0
      else if (part === '\n') {
        this.lines.push('')
        this.at = 0
      } else {
        const line = this.lines.at(-1)!
        this.lines[this.lines.length - 1] = line.slice(0, this.at) + part + line.slice(this.at + part.length)
        this.at += part.length
        if (this.at > this.columns) throw new Error('the line wraps')
      }
    }
  }
  private at = 0
}

describe('the progress line', () => {
  it('stands on one line of a terminal, with notes above it', () => {
    const terminal = new Terminal(30)
    const line = new ProgressLine(terminal, 10)
    line.update('step 1, a rather long line that does not fit')
    line.update('step 2')
    line.note('checkpoint written')
    line.update('step 3')
    line.end()
    expect(terminal.lines.map((text) => text.trimEnd())).toEqual(['checkpoint written', 'step 3', ''])
  })

  it('is a plain line every few seconds elsewhere, the last one always', () => {
    const written: string[] = []
    let now = 0
    const line = new ProgressLine({ write: (text: string) => written.push(text) }, 10, () => now)
    for (const [second, text] of [
      [0, 'a'],
      [4, 'b'],
      [9, 'c'],
      [10, 'd'],
      [15, 'e'],
      [16, 'f'],
    ] as const) {
      now = second
      line.update(text)
    }
    line.note('note')
    line.end()
    line.end()
    expect(written).toEqual(['a\n', 'd\n', 'note\n', 'f\n'])
  })
})

describe('figures', () => {
  it('of time have two units', () => {
    const spans = [0.04, 9.94, 59.4, 59.6, 185, 3599.6, 7800, 86_400 * 4 + 3 * 3600]
    expect(spans.map(formatDuration)).toEqual([
      ...['0.0 s', '9.9 s', '59 s', '1 min 00 s', '3 min 05 s', '1 h 00 min', '2 h 10 min', '4 d 3 h'],
    ])
  })

  it('of counts are short', () => {
    expect([0, 950, 12_345, 4_560_000, 2.85e12].map(formatCount)).toEqual(['0', '950', '12.3k', '4.56M', '2.85T'])
  })

  it('of the time left follow recent steps', () => {
    const left = new TimeLeft(2)
    expect(left.forSteps(10)).toBeUndefined()
    for (const seconds of [100, 1, 3]) left.add(seconds)
    expect(left.forSteps(10)).toBe(20)
  })
})
