import { Command } from 'commander'
import { Corpus } from '../corpus/corpus.js'
import type { DifficultySummary } from '../corpus/difficulty-statistics.js'
import { buildDifficultyIndex } from '../run/build-difficulty-index.js'
import { formatCount, ProgressLine } from '../run/progress.js'
import { addCorpusOptions, type CorpusFlags, corpusSource } from './corpus-options.js'
import { addModelOptions, findModel, type ModelFlags, openModel, wholeNumber } from './model-options.js'
import { printResult, textTable } from './print.js'

interface FilterFlags extends ModelFlags, CorpusFlags {
  output: string
  topK: number
  window?: number
  maxDocuments?: number
  json?: boolean
}

export function filterCommand(): Command {
  return addModelOptions(addCorpusOptions(new Command('filter')))
    .description('judge how hard every position of a corpus is, once, for many runs')
    .argument('<model>', 'the model that judges: its entropy over the most likely tokens is the difficulty')
    .argument('<files...>', 'files, folders or patterns: text, JSONL, Parquet; plain, .gz, .zst')
    .requiredOption('-o, --output <file>', 'where the index goes; training takes it as difficulty.index')
    .option('--top-k <count>', 'tokens over which the entropy is taken, renormalised', wholeNumber, 16)
    .option('--window <tokens>', 'long documents are scored in parts of so many tokens (default: 4096)', wholeNumber)
    .option('--max-documents <count>', 'stop after so many (default: all)', wholeNumber)
    .option('--json', 'print the statistics as JSON')
    .addHelpText(
      'after',
      `
Examples:
  foretoken filter ./model data/*.jsonl.gz --field solution -o data/difficulty.index
  foretoken train run.yaml --difficulty.index data/difficulty.index`,
    )
    .action(async (model: string, files: string[], flags: FilterFlags) => {
      const corpus = await Corpus.open({
        sources: [corpusSource(files, flags)],
        onBadRecord: flags.skipBad ? 'skip' : 'error',
      })
      const { engine, tokenizer } = await openModel(model, flags)
      const progress = new ProgressLine(process.stderr, 10)
      const begin = performance.now()
      try {
        const { documents, tokens, skipped, statistics } = await buildDifficultyIndex({
          engine,
          tokenizer,
          corpus,
          path: flags.output,
          proxy: await findModel(model),
          topK: flags.topK,
          onBadDocument: flags.skipBad ? 'skip' : 'error',
          ...(flags.window !== undefined && { window: flags.window }),
          ...(flags.maxDocuments !== undefined && { maxDocuments: flags.maxDocuments }),
          onProgress(documents, tokens) {
            const rate = tokens / ((performance.now() - begin) / 1000)
            progress.update(
              `${formatCount(documents)} documents, ${formatCount(tokens)} tokens, ${formatCount(rate)}/s`,
            )
          },
        })
        progress.end()
        const summary = statistics.summary()
        const topShare = Object.fromEntries(
          [0.05, 0.1, 0.2, 0.5].map((share) => [String(share), statistics.thresholdOfShare(share)]),
        )
        const result = { index: flags.output, documents, tokens, skipped, ...summary, thresholdOfShare: topShare }
        printResult(flags.json, result, () => summaryText(result, summary))
      } finally {
        await engine.dispose()
      }
    })
}

function summaryText(
  result: {
    index: string
    documents: number
    tokens: number
    skipped: number
    thresholdOfShare: Record<string, number>
  },
  { mean, deviation, max, above, histogram }: DifficultySummary,
): string {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`
  return [
    `${result.documents} documents (${result.skipped} left out), ${result.tokens} tokens → ${result.index}`,
    `entropy: mean ${mean.toFixed(3)} nats, deviation ${deviation.toFixed(3)}, greatest ${max.toFixed(3)}`,
    '',
    textTable([
      ['split', 'above', 'positions'],
      ['easy', '0.5', percent(above.easy)],
      ['medium', '1.0', percent(above.medium)],
      ['hard', '1.5', percent(above.hard)],
    ]),
    '',
    `the hardest 10 % lie above ${result.thresholdOfShare['0.1']!.toFixed(3)} nats, 20 % above ` +
      `${result.thresholdOfShare['0.2']!.toFixed(3)}`,
    '',
    ...histogramLines(histogram),
  ].join('\n')
}

/** A bar per bin, the longest of 50 signs. */
function histogramLines({ limit, counts }: DifficultySummary['histogram']): string[] {
  const most = Math.max(1, ...counts)
  return counts.map((count, i) => {
    const from = ((i * limit) / counts.length).toFixed(2)
    return `${from.padStart(5)} ${'█'.repeat(Math.round((50 * count) / most))} ${count}`
  })
}
