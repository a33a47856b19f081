import { stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { Command } from 'commander'
import { ForetokenError } from '../engine/errors.js'
import { evaluate } from '../evaluate/evaluate.js'
import { evaluationMetrics } from '../evaluate/evaluation-metrics.js'
import type { EvaluationReport } from '../evaluate/types.js'
import { chooseTargets, readTargets, writeTargets } from '../run/evaluation-targets.js'
import { readConfigSource, resolveConfig } from '../run/load-config.js'
import { openCorpus, openEngine, openHeldOut, openTokenizer } from '../run/open-parts.js'
import { ProgressLine } from '../run/progress.js'
import { RunDirectory } from '../run/run-directory.js'
import { evaluationOptions } from '../run/run-evaluation.js'
import { readConfigArguments } from './config-arguments.js'
import { findModel } from './model-options.js'
import { printResult, textTable } from './print.js'
import { UsageError } from './usage-error.js'

interface EvaluateFlags {
  config?: string
  targets?: string
  saveTargets?: string
  json?: boolean
}

export function evaluateCommand(): Command {
  return new Command('evaluate')
    .description('accuracy on held-out text by difficulty: plain next-token prediction against reasoning')
    .usage('<model> [--key value]... [options]')
    .option('--config <file>', 'config of the corpus, prompt and evaluation; a checkpoint of a run has its own')
    .option('--targets <file>', 'ask these questions (evaluation.jsonl of a run), so that models can be compared')
    .option('--save-targets <file>', 'keep the questions for other models')
    .option('--json', 'print the result as JSON')
    .allowUnknownOption()
    .allowExcessArguments()
    .addHelpText(
      'after',
      `
The model is a folder, a checkpoint or a run. A checkpoint of a run is asked the questions of that run, chosen by the
model that the run began with. Elsewhere difficulty.proxy chooses them, or the model itself. Every key of the config is
also a flag; \`foretoken train --keys\` lists them all.

Examples:
  foretoken evaluate runs/rpt/checkpoints/step-200
  foretoken evaluate ./model --corpus.sources test.jsonl --corpus.held-out 0.2 --evaluation.documents 200
  foretoken evaluate ./model --evaluation.sources test.jsonl --evaluation.reasoning false --json`,
    )
    .action(async (_, command: Command) => {
      const options = command.opts<EvaluateFlags>()
      const { flags, file: given } = readConfigArguments(command.args)
      if (given === undefined) throw new UsageError('a model is missing: foretoken evaluate <model>')
      const model = resolve(await findModel(given))
      const run = await runOf(model)
      const configFile = options.config ?? run?.config
      const source = configFile === undefined ? undefined : await readConfigSource(configFile)
      // The model of the command line takes the place of whatever the config trains.
      if (source) delete source.values.model
      const config = resolveConfig({
        preset: { model: { path: model } } as never,
        ...(source && { source }),
        flags,
      })
      const targetsFile = options.targets ?? (run && options.config === undefined ? run.targets : undefined)

      const progress = new ProgressLine(process.stderr, 10)
      await using engine = await openEngine(config)
      const tokenizer = await openTokenizer(config, engine)
      const corpus = config.corpus.sources === undefined ? undefined : await openCorpus(config)
      const heldOut = await openHeldOut(config, corpus)
      if (!heldOut) {
        throw new ForetokenError(
          'INVALID_CONFIG',
          'there are no documents to evaluate on: give --evaluation.sources, or --corpus.sources with --corpus.held-out',
        )
      }
      const targets =
        targetsFile === undefined
          ? await chooseWith(config.difficulty.proxy, async (proxy) =>
              chooseTargets(config, proxy ?? engine, tokenizer, heldOut),
            )
          : await readTargets(targetsFile, config, tokenizer, heldOut)
      if (options.saveTargets !== undefined) await writeTargets(options.saveTargets, targets)
      const report = await evaluate(engine, tokenizer, targets, {
        ...evaluationOptions(config),
        onProgress: (done, total) => progress.update(`${done} of ${total} answers`),
      })
      progress.end()
      printResult(
        options.json,
        { model, targets: targets.length, ...evaluationMetrics(report), seconds: report.seconds, flops: report.flops },
        () => reportText(report),
      )

      async function chooseWith<Result>(
        proxy: string | undefined,
        choose: (engine: Awaited<ReturnType<typeof openEngine>> | undefined) => Promise<Result>,
      ): Promise<Result> {
        if (proxy === undefined) return choose(undefined)
        await using judge = await openEngine(config, proxy)
        return choose(judge)
      }
    })
}

/** The run that a checkpoint belongs to. */
async function runOf(model: string): Promise<RunDirectory | undefined> {
  const folder = dirname(dirname(model))
  const isRun = (await stat(join(folder, 'manifest.json')).catch(() => undefined)) !== undefined
  return isRun ? new RunDirectory(folder) : undefined
}

function reportText({ splits, seconds, samples }: EvaluationReport): string {
  const percent = (value: number, error: number) => `${(100 * value).toFixed(1)} ± ${(100 * error).toFixed(1)} %`
  const rows = Object.entries(splits).flatMap(([name, split]) => {
    if (split.positions === 0) return []
    const { reasoning, forced } = split
    return [
      [
        name,
        String(split.positions),
        percent(split.prediction, split.predictionStandardError),
        reasoning ? percent(reasoning.accuracy, reasoning.standardError) : '–',
        forced ? percent(forced.accuracy, forced.standardError) : '–',
        reasoning ? reasoning.thoughtLength.toFixed(1) : '–',
        reasoning ? reasoning.length.toFixed(1) : '–',
        reasoning ? `${(100 * reasoning.withoutBox).toFixed(1)} %` : '–',
      ],
    ]
  })
  const titles = ['split', 'positions', 'prediction', 'reasoning', 'forced', 'thought', 'length', 'no box']
  const thoughts = samples.map(
    ({ context, thought, prediction, truth, right }) =>
      `${right ? '✓' : '✗'} …${JSON.stringify(context.slice(-60))} → ${JSON.stringify(prediction)} ` +
      `(truth ${JSON.stringify(truth.slice(0, 20))})\n  ${JSON.stringify(thought.slice(0, 300))}`,
  )
  return [textTable([titles, ...rows]), `in ${seconds.toFixed(1)} s`, '', ...thoughts].join('\n').trimEnd()
}
