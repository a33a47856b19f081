import { difficultySplits } from './positions.js'

/** What the entropies of a corpus look like. */
export interface DifficultySummary {
  /** Positions with an entropy. */
  count: number
  /** Mean entropy, in nats. */
  mean: number
  /** Standard deviation, in nats. */
  deviation: number
  /** Greatest entropy, in nats. */
  max: number
  /** The share of positions above each split's threshold. */
  above: { easy: number; medium: number; hard: number }
  /** Counts of equal bins from 0 to `limit` nats; the last bin takes what is beyond. */
  histogram: { limit: number; counts: number[] }
}

/** Gathers entropies into statistics and a histogram, one document at a time, in constant memory. */
export class DifficultyStatistics {
  private count = 0
  private sum = 0
  private squares = 0
  private max = 0
  private readonly counts: Float64Array
  private readonly above = { easy: 0, medium: 0, hard: 0 }

  /** `limit` is by default the greatest entropy of 16 tokens, ln 16. */
  constructor(
    private readonly limit = Math.log(16),
    bins = 4096,
  ) {
    this.counts = new Float64Array(bins)
  }

  /** Adds the entropies of a document; NaN (no context) is passed over. */
  add(entropies: ArrayLike<number>): void {
    const bins = this.counts.length
    for (let t = 0; t < entropies.length; ++t) {
      const entropy = entropies[t]!
      if (Number.isNaN(entropy)) continue
      ++this.count
      this.sum += entropy
      this.squares += entropy * entropy
      this.max = Math.max(this.max, entropy)
      const bin = Math.max(0, Math.min(bins - 1, Math.floor((entropy / this.limit) * bins)))
      ++this.counts[bin]!
      for (const split of ['easy', 'medium', 'hard'] as const) {
        if (entropy > difficultySplits[split]) ++this.above[split]
      }
    }
  }

  /** The entropy above which about a share of all positions lie, exact to one bin: the threshold of a corpus-wide share. */
  thresholdOfShare(share: number): number {
    let left = share * this.count
    for (let bin = this.counts.length - 1; bin >= 0; --bin) {
      left -= this.counts[bin]!
      if (left < 0) return ((bin + 1) / this.counts.length) * this.limit
    }
    return 0
  }

  /** The statistics, with the histogram in so many bins (a divisor of those gathered). */
  summary(bins = 32): DifficultySummary {
    const width = this.counts.length / bins
    const counts = Array.from({ length: bins }, (_, i) =>
      this.counts.subarray(i * width, (i + 1) * width).reduce((sum, count) => sum + count, 0),
    )
    const total = Math.max(1, this.count)
    const mean = this.sum / total
    return {
      count: this.count,
      mean,
      deviation: Math.sqrt(Math.max(0, this.squares / total - mean * mean)),
      max: this.max,
      above: {
        easy: this.above.easy / total,
        medium: this.above.medium / total,
        hard: this.above.hard / total,
      },
      histogram: { limit: this.limit, counts },
    }
  }
}
