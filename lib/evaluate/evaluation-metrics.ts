import type { EvaluationReport } from './types.js'

/**
 * An evaluation as flat numbers, for each split that has positions: `eval/<split>/positions`, `prediction`,
 * `prediction_stderr`, `reasoning`, `reasoning_stderr`, `length`, `thought_length`, `without_box`, `truncated`, and with forced work
 * `forced`, `forced_stderr`, `forced_length`.
 */
export function evaluationMetrics({ splits }: EvaluationReport): Record<string, number> {
  const metrics: Record<string, number> = {}
  for (const [split, result] of Object.entries(splits)) {
    if (result.positions === 0) continue
    const put = (name: string, value: number) => {
      metrics[`eval/${split}/${name}`] = value
    }
    put('positions', result.positions)
    put('prediction', result.prediction)
    put('prediction_stderr', result.predictionStandardError)
    if (result.reasoning) {
      put('reasoning', result.reasoning.accuracy)
      put('reasoning_stderr', result.reasoning.standardError)
      put('length', result.reasoning.length)
      put('thought_length', result.reasoning.thoughtLength)
      put('without_box', result.reasoning.withoutBox)
      put('truncated', result.reasoning.truncated)
    }
    if (result.forced) {
      put('forced', result.forced.accuracy)
      put('forced_stderr', result.forced.standardError)
      put('forced_length', result.forced.length)
    }
  }
  return metrics
}
