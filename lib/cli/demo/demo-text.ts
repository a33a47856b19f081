import { type DifficultySplit, difficultySplits } from '../../corpus/positions.js'
import { formatCount, formatDuration } from '../../run/progress.js'
import { textTable } from '../print.js'
import type { DemoEvaluation, DemoResult, SplitFigures } from './demo-result.js'

/** What is compared, in the order of the table. */
export const comparisons: readonly {
  name: string
  pick: (result: DemoResult) => (split: DifficultySplit) => number | null
}[] = [
  row(
    'prediction before',
    ({ before }) => before,
    ({ prediction }) => prediction,
  ),
  row(
    'prediction of the control',
    ({ control }) => control,
    ({ prediction }) => prediction,
  ),
  row(
    'reasoning before',
    ({ before }) => before,
    ({ reasoning }) => reasoning,
  ),
  row(
    'reasoning before, made to work it out',
    ({ before }) => before,
    ({ forced }) => forced,
  ),
  row(
    'reasoning after RPT',
    ({ after }) => after,
    ({ reasoning }) => reasoning,
  ),
]

function row(
  name: string,
  evaluation: (result: DemoResult) => DemoEvaluation,
  figure: (figures: SplitFigures) => number | null,
): (typeof comparisons)[number] {
  return {
    name,
    pick: (result) => (split) => {
      const figures = evaluation(result)[split]
      return figures && figure(figures)
    },
  }
}

/** Mean and, from two values on, standard deviation. */
export interface Spread {
  mean: number
  deviation: number | null
}

/** A comparison over the seeds; undefined where no seed has the split. */
export function spreadOf(values: readonly (number | null)[]): Spread | undefined {
  const known = values.filter((value) => value !== null)
  if (known.length === 0) return undefined
  const mean = known.reduce((sum, value) => sum + value, 0) / known.length
  const squares = known.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  return { mean, deviation: known.length > 1 ? Math.sqrt(squares / (known.length - 1)) : null }
}

/** `93.5 (4.7)`: percent, and the standard deviation over seeds. */
export function percentText(spread: Spread | undefined): string {
  if (!spread) return '–'
  const { mean, deviation } = spread
  return `${(100 * mean).toFixed(1)}${deviation === null ? '' : ` (${(100 * deviation).toFixed(1)})`}`
}

export const splitNames = Object.keys(difficultySplits) as DifficultySplit[]

/** The rows of the table of accuracies: one for each comparison, one column for each split. */
export function accuracyRows(results: readonly DemoResult[]): string[][] {
  return comparisons.map(({ name, pick }) => [
    name,
    ...splitNames.map((split) => percentText(spreadOf(results.map((result) => pick(result)(split))))),
  ])
}

/** The columns' titles: splits, their thresholds in nats and the number of positions. */
export function accuracyTitles(results: readonly DemoResult[]): string[] {
  const counts = splitNames.map((split) => {
    const positions = results.map(({ before }) => before[split]?.positions ?? 0)
    const [least, most] = [Math.min(...positions), Math.max(...positions)]
    return least === most ? `${least}` : `${least}–${most}`
  })
  return ['accuracy in %', ...splitNames.map((split, i) => `${split} > ${difficultySplits[split]} (${counts[i]})`)]
}

/** The rows of the table of costs. */
export function costRows({ cost }: DemoResult): string[][] {
  return Object.entries(cost).map(([arm, { steps, tokens, flops, seconds }]) => [
    arm,
    String(steps),
    formatCount(tokens),
    `${formatCount(flops)}FLOP`,
    formatDuration(seconds),
  ])
}

export const costTitles = ['arm', 'steps', 'tokens', 'compute', 'time']

/** What the demo says at its end. */
export function resultText(results: readonly DemoResult[]): string {
  const result = results[0]!
  const seeds = results.length > 1 ? `, mean (standard deviation) of ${results.length} seeds` : ''
  return [
    `Held-out next-token accuracy by difficulty: entropy in nats (positions)${seeds}`,
    '',
    textTable([accuracyTitles(results), ...accuracyRows(results)]),
    '',
    'On the hard split:',
    ...bars(results),
    '',
    `Tokens of an answer, over the steps of RPT: ${sparkline(result.lengths)}`,
    '',
    textTable([costTitles, ...costRows(result)]),
    '',
    'Three thoughts after RPT, and before it:',
    ...result.thoughts.flatMap(({ context, truth, before, after, prediction, right }) => [
      `  ${context}▁   (the text goes on: ${truth.slice(0, 12)})`,
      `    before  ${before}`,
      `    after   ${after} → ${prediction ?? 'no answer'} ${right ? '✓' : '✗'}`,
    ]),
  ].join('\n')
}

/** A bar for each comparison, to a scale of 0 to 100 %. */
export function bars(results: readonly DemoResult[], width = 40): string[] {
  const longest = Math.max(...comparisons.map(({ name }) => name.length))
  return comparisons.map(({ name, pick }) => {
    const spread = spreadOf(results.map((result) => pick(result)('hard')))
    return `  ${name.padEnd(longest)}  ${bar(spread?.mean ?? 0, width).padEnd(width)}  ${percentText(spread)}`
  })
}

/** A share as a line of blocks, to an eighth of a character. */
function bar(share: number, width: number): string {
  const eighths = Math.round(Math.min(1, Math.max(0, share)) * width * 8)
  const rest = eighths % 8
  return '█'.repeat(Math.floor(eighths / 8)) + (rest > 0 ? '▏▎▍▌▋▊▉'[rest - 1]! : '')
}

/** Values as a line of blocks from the least to the greatest, with both in figures. */
export function sparkline(values: readonly (number | null)[], width = 40): string {
  const known = values.filter((value) => value !== null)
  if (known.length === 0) return '–'
  const columns = Math.min(width, known.length)
  const means = Array.from({ length: columns }, (_, i) => {
    const part = known.slice(Math.floor((i * known.length) / columns), Math.floor(((i + 1) * known.length) / columns))
    return part.reduce((sum, value) => sum + value, 0) / part.length
  })
  const [least, most] = [Math.min(...means), Math.max(...means)]
  const level = (value: number) => (most > least ? Math.round((7 * (value - least)) / (most - least)) : 0)
  const blocks = means.map((value) => '▁▂▃▄▅▆▇█'[level(value)]!).join('')
  return `${means[0]!.toFixed(1)} ${blocks} ${means.at(-1)!.toFixed(1)}`
}
