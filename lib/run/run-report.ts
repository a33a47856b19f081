import type { Sample } from '../algorithm/method.js'
import type { EvaluationSample } from '../evaluate/types.js'
import type { StepMetrics } from '../train/types.js'
import { readJsonLines } from './json-lines-log.js'
import { type Chart, type ChartSeries, type Page, type PageTable, renderPage } from './page.js'
import { formatCount, formatDuration } from './progress.js'
import type { RunDirectory } from './run-directory.js'
import { skippedText } from './run-display.js'
import { writeAtomically } from './write-atomically.js'

/** A line of samples.jsonl: an answer of a training step, or of the evaluation after it. */
export type SampleLine = { step: number } & (
  | ({ kind: 'training' } & Sample)
  | ({ kind: 'evaluation' } & EvaluationSample)
)

/** Writes report.html from what the run directory holds. */
export async function writeRunReport(run: RunDirectory): Promise<void> {
  await writeAtomically(run.report, await renderPage(await runPage(run)))
}

/** What the report of a run shows. */
export async function runPage(run: RunDirectory): Promise<Page> {
  const [config, manifest] = [await run.readConfig(), await run.readManifest()]
  const metrics = await readJsonLines<StepMetrics>(run.metrics)
  const samples = await readJsonLines<SampleLine>(run.samples)
  // An evaluation alone, before the first step or after the text has ended, counts nothing.
  const last = metrics.findLast(({ num_tokens }) => num_tokens !== undefined)
  const skipped = last && skippedText(last)
  const seconds = metrics.reduce((sum, { step_time = 0 }) => sum + step_time, 0)
  return {
    title: `${config.method} · ${run.path.split(/[\\/]/).at(-1)}`,
    lead:
      `${last?.step ?? 0} of ${config.steps} steps, ${formatCount(last?.num_tokens ?? 0)} tokens, ` +
      `${formatCount(last?.total_flops ?? 0).replace(/[a-z]?$/i, ' $&')}FLOP, ${formatDuration(seconds)} in steps, ` +
      `${formatCount(manifest.parameters)} parameters, ${manifest.deviceDescription}, ` +
      `seed ${config.seed}, foretoken ${manifest.foretoken}.` +
      (skipped === undefined ? '' : ` ${skipped[0]!.toUpperCase()}${skipped.slice(1)}.`),
    tables: [evaluationTable(metrics)],
    charts: runCharts(metrics),
    appendix: [beforeAndAfter(samples), latestAnswers(samples)],
  }
}

const splits = ['easy', 'medium', 'hard'] as const

/** Charts by what they show; a metric that a run does not have leaves its line out, and an empty chart is left out. */
function runCharts(metrics: readonly StepMetrics[]): Chart[] {
  const charts: Chart[] = [
    { title: 'Reward', series: lines(metrics, { reward: 'mean', reward_std: 'standard deviation' }) },
    {
      title: 'Held-out accuracy by split',
      range: [0, 1],
      series: splits.flatMap((split) => [
        ...lines(metrics, { [`eval/${split}/reasoning`]: `${split}, reasoning` }),
        ...lines(metrics, { [`eval/${split}/prediction`]: `${split}, prediction` }, true),
      ]),
    },
    {
      title: 'Accuracy of rollouts by split',
      range: [0, 1],
      series: lines(metrics, Object.fromEntries(splits.map((split) => [`rpt/accuracy/${split}`, split]))),
    },
    { title: 'Entropy', unit: 'nats', series: lines(metrics, { entropy: 'of sampled tokens' }) },
    {
      title: 'Thought length',
      unit: 'tokens',
      series: lines(metrics, {
        'completions/mean_thought_length': 'of thoughts, mean',
        'completions/mean_length': 'of answers, mean',
        'completions/max_length': 'of the longest answer',
      }),
    },
    { title: 'Loss', series: lines(metrics, lossNames) },
    { title: 'Gradient norm', series: lines(metrics, { grad_norm: 'before clipping' }) },
    { title: 'Throughput', unit: 'tokens/s', series: lines(metrics, { tokens_per_second: 'all parts' }) },
    {
      title: 'Time of a step',
      unit: 's',
      series: lines(metrics, {
        'seconds/rollouts': 'rollouts',
        'seconds/update': 'update',
        'seconds/score': 'scoring',
        'seconds/text': 'text',
        'seconds/reward': 'reward',
      }),
    },
    {
      title: 'Groups and answers',
      range: [0, 1],
      series: lines(metrics, {
        frac_reward_zero_std: 'groups of equal rewards',
        'completions/clipped_ratio': 'cut off',
        'completions/without_box': 'without a box',
      }),
    },
    { title: 'Learning rate', series: lines(metrics, { learning_rate: 'learning rate' }) },
    {
      title: 'Divergence',
      series: nonZero(lines(metrics, { kl: 'from the reference', approx_kl: 'from the sampler' })),
    },
  ]
  return charts.filter(({ series }) => series.length > 0)
}

const lossNames = {
  loss: 'minimised',
  'loss/policy': 'policy gradient',
  'loss/auxiliary': 'next token',
  'loss/traces': 'traces',
  'loss/text': 'text',
}

function lines(metrics: readonly StepMetrics[], names: Record<string, string>, dashed = false): ChartSeries[] {
  return Object.entries(names).flatMap(([name, label]) => {
    const having = metrics.filter((step) => typeof step[name] === 'number')
    if (having.length === 0) return []
    return [{ label, dashed, x: having.map(({ step }) => step), y: having.map((step) => step[name]!) }]
  })
}

function nonZero(series: readonly ChartSeries[]): ChartSeries[] {
  return series.filter(({ y }) => y.some((value) => value !== 0))
}

/** The first and the last evaluation, split by split. */
function evaluationTable(metrics: readonly StepMetrics[]): PageTable {
  const evaluated = metrics.filter((step) =>
    splits.some((split) => typeof step[`eval/${split}/prediction`] === 'number'),
  )
  const shown = [...new Set([evaluated[0], evaluated.at(-1)])].filter((step) => step !== undefined)
  const percent = (value: number | undefined, error?: number) =>
    typeof value !== 'number' ? '–' : `${(100 * value).toFixed(1)} %${error ? ` ± ${(100 * error).toFixed(1)}` : ''}`
  return {
    title: 'Held-out accuracy',
    note: 'Prediction is the most likely next token without a thought; reasoning is by prefix match; ± one standard error.',
    columns: [
      'split',
      'step',
      'prediction',
      'reasoning',
      'tokens of a thought',
      'of an answer',
      'without a box',
      'positions',
    ],
    rows: splits.flatMap((split) =>
      shown.map((step) => {
        const at = (name: string) => step[`eval/${split}/${name}`]
        return [
          split,
          String(step.step),
          percent(at('prediction'), at('prediction_stderr')),
          percent(at('reasoning'), at('reasoning_stderr')),
          at('thought_length')?.toFixed(1) ?? '–',
          at('length')?.toFixed(1) ?? '–',
          percent(at('without_box')),
          String(at('positions') ?? '–'),
        ]
      }),
    ),
  }
}

/** The same questions in the first and the last evaluation. */
function beforeAndAfter(samples: readonly SampleLine[]): PageTable {
  const evaluated = samples.filter((sample) => sample.kind === 'evaluation')
  const first = evaluated[0]?.step
  const last = evaluated.at(-1)?.step
  const question = ({ document, position }: EvaluationSample) => `${document} ${position}`
  const after = new Map(evaluated.filter(({ step }) => step === last).map((sample) => [question(sample), sample]))
  const rows = evaluated.flatMap((before) => {
    const then = before.step === first && first !== last ? after.get(question(before)) : undefined
    return then ? [[ending(before.context), before.truth, answer(before), answer(then)]] : []
  })
  return {
    title: 'The same questions before and after',
    columns: ['context', 'truth', `step ${first}`, `step ${last}`],
    rows,
    prose: true,
  }
}

function answer({ thought, prediction, right }: EvaluationSample): string {
  return `${right ? '✓' : '✗'} ${prediction === null ? 'no box' : JSON.stringify(prediction)}\n${ending(thought, 600)}`
}

/** Answers of the last training step that has any. */
function latestAnswers(samples: readonly SampleLine[]): PageTable {
  const training = samples.filter((sample) => sample.kind === 'training')
  const last = training.at(-1)?.step
  return {
    title: `Answers of training step ${last}`,
    columns: ['context', 'thought', 'prediction', 'truth', 'reward'],
    rows: training
      .filter(({ step }) => step === last)
      .map(({ context, thought, prediction, truth, reward }) => [
        ending(context),
        ending(thought, 600),
        prediction === null ? 'no box' : JSON.stringify(prediction),
        truth,
        String(Number(reward.toFixed(3))),
      ]),
    prose: true,
  }
}

function ending(text: string, length = 160): string {
  return text.length > length ? `…${text.slice(-length)}` : text
}
