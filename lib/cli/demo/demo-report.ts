import { type Chart, type Page, renderPage } from '../../run/page.js'
import { writeAtomically } from '../../run/write-atomically.js'
import type { DemoResult } from './demo-result.js'
import { accuracyRows, accuracyTitles, costRows, costTitles } from './demo-text.js'

/** Writes the demo's page: the comparison over all seeds, curves of each seed, the thoughts of the first. */
export async function writeDemoReport(path: string, results: readonly DemoResult[]): Promise<void> {
  await writeAtomically(path, await renderPage(demoPage(results)))
}

function demoPage(results: readonly DemoResult[]): Page {
  const result = results[0]!
  const several = results.length > 1 ? ` Mean and standard deviation of ${results.length} seeds.` : ''
  return {
    title: 'foretoken demo',
    lead:
      'Reinforcement pre-training of a model from nothing. The control read the same documents by next-token ' +
      `prediction, with twice the FLOPs.${several}`,
    tables: [
      {
        title: 'Held-out next-token accuracy by difficulty',
        note:
          'Splits by the entropy, in nats, that the model had before RPT; in brackets the number of positions. ' +
          'Made to work it out: the mark of a guess was forbidden.',
        columns: accuracyTitles(results),
        rows: accuracyRows(results),
      },
      { title: `What it took, seed ${result.seed}`, columns: costTitles, rows: costRows(result) },
    ],
    charts: [
      chart('Reward of rollouts', results, ({ rewards }) => rewards),
      { ...chart('Tokens of an answer', results, ({ lengths }) => lengths), unit: 'tokens' },
    ],
    appendix: [
      {
        title: 'Thoughts before and after RPT',
        columns: ['context', 'the text goes on', 'before', 'after'],
        rows: result.thoughts.map(({ context, truth, before, after, prediction, right }) => [
          context,
          truth,
          before,
          `${after} → ${prediction ?? 'no answer'} ${right ? '✓' : '✗'}`,
        ]),
        prose: true,
      },
    ],
  }
}

function chart(
  title: string,
  results: readonly DemoResult[],
  values: (result: DemoResult) => (number | null)[],
): Chart {
  return {
    title,
    series: results.map((result) => {
      const y = values(result)
      return { label: `seed ${result.seed}`, x: y.map((_, i) => i + 1), y }
    }),
  }
}
