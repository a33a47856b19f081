import { cp, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ConfigFlag } from '../../run/config-flags.js'
import type { RunConfig } from '../../run/config-schema.js'
import { jsonLine, readJsonLines } from '../../run/json-lines-log.js'
import { readConfigSource, resolveConfig } from '../../run/load-config.js'
import { type Preset, pretrainPreset } from '../../run/presets.js'
import type { ProgressStream } from '../../run/progress.js'
import { startRun } from '../../run/run.js'
import { RunDirectory } from '../../run/run-directory.js'
import { writeAtomically } from '../../run/write-atomically.js'
import { latestCheckpoint } from '../../train/checkpoint.js'
import type { StepMetrics } from '../../train/types.js'
import { type DemoCorpusSizes, type TraceMixture, writeDemoCorpus } from './corpus.js'
import { armCost, type DemoResult, evaluationOf, readThoughts } from './demo-result.js'

export interface DemoOptions {
  seed: number
  /** The folder of everything that the demo writes for this seed. */
  folder: string
  /** A few steps only, to see that all parts work; nothing is learned. */
  quick: boolean
  /** Where progress goes. */
  stream: ProgressStream
  /** Told what comes next, in a sentence. */
  say: (sentence: string) => void
}

/** The demo was asked to stop before its end; it goes on from there when it is started again. */
export interface DemoStopped {
  exitStatus: number
}

const mixture: TraceMixture = { worked: 0.4, guessed: 0.5, slip: 0.15 }
const sizes: DemoCorpusSizes = { pretrain: 40_000, traces: 40_000, train: 60_000, heldOut: 300 }
const quickSizes: DemoCorpusSizes = { pretrain: 200, traces: 200, train: 400, heldOut: 30 }

/** The control spends so many times the FLOPs of RPT. */
const controlBudget = 2

/**
 * The whole demo for one seed: corpus, cold start, RPT, control. A stage that is complete is not done again, and one
 * that was interrupted goes on, so that a second start finishes what a first one began.
 */
export async function runDemo(options: DemoOptions): Promise<DemoResult | DemoStopped> {
  const { seed, folder, quick, say } = options
  const corpus = join(folder, 'corpus')
  const tokenizer = join(corpus, 'tokenizer')
  if (!(await exists(join(tokenizer, 'tokenizer_config.json')))) {
    say('writing the corpus: problems of three kinds, their data at random, their answers after them')
    await writeDemoCorpus(corpus, { seed, sizes: quick ? quickSizes : sizes, mixture })
  }

  say('1. pretrain: a small Qwen3-shaped model from nothing, on documents and a few ways of reasoning (the cold start)')
  const pretrain = await stage(options, 'pretrain', { quickSteps: 4, preset: pretrainPreset }, [
    flag('model.tokenizer', tokenizer),
    flag('corpus.sources', join(corpus, 'pretrain.jsonl')),
    flag('sft.traces', join(corpus, 'traces.jsonl')),
  ])
  if ('exitStatus' in pretrain) return pretrain

  say('2. rpt: on raw documents; where the model is unsure it thinks, and the text itself says whether it was right')
  const data = [
    flag('model.path', pretrain.checkpoint),
    flag('corpus.sources', join(corpus, 'train.jsonl')),
    flag('evaluation.sources', join(corpus, 'held-out.jsonl')),
  ]
  const rpt = await stage(options, 'rpt', { quickSteps: 2 }, data)
  if ('exitStatus' in rpt) return rpt

  const steps = quick ? 2 : await controlSteps(rpt.metrics.at(-1)!.total_flops, pretrain)
  say('3. control: next-token prediction on the same documents, with twice the FLOPs of RPT')
  const control = await stage(options, 'control', { quickSteps: 2 }, [...data, flag('steps', steps)])
  if ('exitStatus' in control) return control

  const model = join(folder, 'model')
  await rm(model, { recursive: true, force: true })
  await cp(rpt.checkpoint, model, {
    recursive: true,
    filter: (path) => !path.startsWith(join(rpt.checkpoint, 'training')) && !path.endsWith('trainer.json'),
  })
  const result: DemoResult = {
    seed,
    quick,
    before: evaluationOf(rpt.metrics.find(({ step }) => step === 0)),
    after: evaluationOf(rpt.metrics.at(-1)),
    control: evaluationOf(control.metrics.at(-1)),
    lengths: rpt.metrics.filter(({ step }) => step > 0).map((metrics) => metrics['completions/mean_length'] ?? null),
    rewards: rpt.metrics.filter(({ step }) => step > 0).map(({ reward }) => reward ?? null),
    cost: { pretrain: armCost(pretrain.metrics), rpt: armCost(rpt.metrics), control: armCost(control.metrics) },
    thoughts: await readThoughts(new RunDirectory(join(folder, 'rpt'))),
    model,
  }
  await writeAtomically(join(folder, 'result.json'), `${jsonLine(result)}\n`)
  return result
}

/** Removes what a demo left in its folder, and nothing else that may be there. */
export async function removeDemo(folder: string): Promise<void> {
  for (const name of ['corpus', 'pretrain', 'rpt', 'control', 'model', 'result.json', 'report.html']) {
    await rm(join(folder, name), { recursive: true, force: true })
  }
}

/** What a demo that was run before found; undefined where it did not come to its end. */
export async function readDemoResult(folder: string): Promise<DemoResult | undefined> {
  const path = join(folder, 'result.json')
  return (await exists(path)) ? (JSON.parse(await readFile(path, 'utf8')) as DemoResult) : undefined
}

interface Stage {
  checkpoint: string
  /** The steps, and evaluations that belong to none. */
  metrics: StepMetrics[]
}

/** Runs one config of examples/demo, or finishes it. */
async function stage(
  options: DemoOptions,
  name: 'pretrain' | 'rpt' | 'control',
  { quickSteps, preset }: { quickSteps: number; preset?: Preset },
  flags: readonly ConfigFlag[],
): Promise<Stage | DemoStopped> {
  const config = await demoConfig(name, preset, [
    flag('seed', options.seed),
    flag('output', join(options.folder, name)),
    ...flags,
    ...(options.quick ? [flag('steps', quickSteps), flag('evaluation.documents', 10)] : []),
  ])
  const run = new RunDirectory(config.output!)
  const begun = (await run.hasRun()) ? await latestCheckpoint(run.checkpoints) : undefined
  if (begun === undefined || begun.step < config.steps) {
    const { finished, exitStatus } = await startRun(config, {
      ...(begun === undefined ? { overwrite: true } : { resume: true }),
      stream: options.stream,
    })
    if (!finished) return { exitStatus }
  }
  const { directory } = (await latestCheckpoint(run.checkpoints))!
  return { checkpoint: directory, metrics: await readJsonLines<StepMetrics>(run.metrics) }
}

/** A config of the demo as it is run: the file, and what depends on the seed and the folder. */
export async function demoConfig(
  name: string,
  preset: Preset | undefined,
  flags: readonly ConfigFlag[],
): Promise<RunConfig> {
  const source = await readConfigSource(join(configFolder, `${name}.yaml`))
  return resolveConfig({ source, flags, ...(preset && { preset }) })
}

// lib/cli/demo/ and dist/cli/demo/ are equally deep.
const configFolder = fileURLToPath(new URL('../../../examples/demo/', import.meta.url))

/** As many steps of next-token prediction as spend the control's FLOPs; pre-training tells what a token costs. */
async function controlSteps(rptFlops: number, pretrain: Stage): Promise<number> {
  const { ntp } = await demoConfig('control', undefined, [])
  const { total_flops, num_tokens } = pretrain.metrics.at(-1)!
  return Math.ceil((controlBudget * rptFlops) / ((total_flops / num_tokens) * ntp.tokensPerStep!))
}

function flag(path: string, value: unknown): ConfigFlag {
  return { path: path.split('.'), value, written: `--${path}` }
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined
}
