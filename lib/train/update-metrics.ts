import type { Update } from '../algorithm/method.js'
import type { AccumulateResult } from '../engine/results.js'

/**
 * The metrics of a step's updates, each the mean over them (`importance_ratio/max` the greatest). `loss` is what was
 * minimised; `loss/<term>` is the mean negative log-prob of a cross-entropy term's tokens, or a policy term's loss.
 */
export function updateMetrics(
  updates: readonly { update: Update; result: AccumulateResult }[],
): Record<string, number> {
  const values: Record<string, number[]> = {}
  const add = (name: string, value: number) => {
    values[name] ??= []
    values[name].push(value)
  }
  for (const { update, result } of updates) {
    add('loss', result.loss)
    const several = Object.keys(update.terms).length > 1
    Object.entries(update.terms).forEach(([name, term], i) => {
      const statistics = result.terms[i]!
      if (several) add(`loss/${name}`, term.kind === 'policy' ? statistics.loss : -statistics.logprob)
      if (i === 0) add('entropy', statistics.entropy)
      if (term.kind !== 'policy') return
      add('clip_ratio/low_mean', statistics.clipLow)
      add('clip_ratio/high_mean', statistics.clipHigh)
      add('clip_ratio/region_mean', statistics.clipRegion)
      add('importance_ratio/mean', statistics.ratioMean)
      add('importance_ratio/max', statistics.ratioMax)
      add('approx_kl', statistics.approximateKl)
      if (term.kl) add('kl', statistics.kl)
    })
  }
  return Object.fromEntries(
    Object.entries(values).map(([name, list]) => [
      name,
      name.endsWith('/max') ? Math.max(...list) : list.reduce((sum, value) => sum + value, 0) / list.length,
    ]),
  )
}
