import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { TextCorpus } from '../algorithm/text-corpus.js'
import type { Corpus } from '../corpus/corpus.js'
import { DifficultyIndex } from '../corpus/difficulty-index.js'
import { Engine } from '../engine/engine.js'
import type { MemoryPlanOptions } from '../engine/options.js'
import type { EvaluationTarget } from '../evaluate/types.js'
import { Tokenizer } from '../text/tokenizer.js'
import { buildDifficultyIndex } from './build-difficulty-index.js'
import type { RunConfig } from './config-schema.js'
import { chooseTargets, readTargets } from './evaluation-targets.js'
import { isModule } from './load-reward.js'
import { describeMachine, type RunManifest } from './manifest.js'
import {
  engineOptions,
  noDocuments,
  openCorpus,
  openEngine,
  openHeldOut,
  openTokenizer,
  openTraces,
} from './open-parts.js'
import { type RunDirectory, shown } from './run-directory.js'
import { memoryText, type RunDisplay } from './run-display.js'

/** What a run works with. */
export class RunParts implements AsyncDisposable {
  difficulty: DifficultyIndex | undefined
  targets: EvaluationTarget[] = []

  constructor(
    readonly engine: Engine,
    readonly tokenizer: Tokenizer,
    readonly corpus: Corpus | undefined,
    readonly traces: TextCorpus | undefined,
  ) {}

  async [Symbol.asyncDispose](): Promise<void> {
    await this.difficulty?.close()
    await this.engine.dispose()
  }
}

/** Opens what a config names, at a checkpoint of the run where there is one. */
export async function openParts(
  config: RunConfig,
  run: RunDirectory,
  checkpoint: string | undefined,
  display: RunDisplay,
  signal: AbortSignal,
): Promise<RunParts> {
  const needsDocuments = config.method !== 'sft' || config.sft.textShare > 0 || config.corpus.sources !== undefined
  const corpus = needsDocuments ? await openCorpus(config) : undefined
  const traces = config.method === 'sft' ? await openTraces(config) : undefined
  const index = config.method === 'rpt' && corpus ? await findIndex(config, run, corpus, display, signal) : undefined
  const engine = await openEngine(config, checkpoint)
  try {
    const parts = new RunParts(engine, await openTokenizer(config, engine), corpus, traces)
    parts.difficulty = index
    index?.check({ tokenizer: parts.tokenizer.fingerprint })
    display.note(
      `${config.method} · ${engine.deviceDescription} · ` +
        `${describeMachine(engine).parameters.toLocaleString('en')} parameters · ${shown(run.path)}`,
    )
    if (engine.deviceNote !== null) display.note(engine.deviceNote)
    display.note(memoryText(await engine.memoryPlan(largestWork(config))))
    const heldOut = config.evaluation.enabled ? await openHeldOut(config, corpus) : undefined
    if (heldOut) {
      parts.targets = checkpoint
        ? await readTargets(run.targets, config, parts.tokenizer, heldOut)
        : await chooseTargets(config, engine, parts.tokenizer, heldOut, signal)
      if (parts.targets.length === 0) display.note('no held-out position is hard enough to be asked about')
    }
    return parts
  } catch (error) {
    await index?.close()
    await engine.dispose()
    throw error
  }
}

/** The most that a step may ask of memory: prompts and answers of full length, none of them sharing anything. */
function largestWork({ method, engine, rpt, sampling, ntp, sft }: RunConfig): MemoryPlanOptions {
  if (method !== 'rpt') {
    const longest = method === 'ntp' ? ntp.maxTokens : sft.maxTokens
    return { trainingTokens: Math.max(engine.batchTokens, longest), contextTokens: longest }
  }
  return {
    trainingTokens: Math.max(engine.batchTokens, sampling.maxPromptTokens + sampling.maxTokens),
    contexts: rpt.contextsPerStep,
    contextTokens: sampling.maxPromptTokens,
    rollouts: rpt.rolloutsPerContext,
    newTokens: sampling.maxTokens,
    keepActivations: sampling.keepActivations,
  }
}

/** The index of a config, or one made now where another model is to judge difficulty. */
async function findIndex(
  config: RunConfig,
  run: RunDirectory,
  corpus: Corpus,
  display: RunDisplay,
  signal: AbortSignal,
): Promise<DifficultyIndex | undefined> {
  const { index, proxy, by, topK } = config.difficulty
  if (index !== undefined) return DifficultyIndex.open(index)
  if (proxy === undefined || by === 'random') return undefined
  const made = await DifficultyIndex.open(run.difficulty).catch(() => undefined)
  if (made?.header.proxy === proxy && made.header.corpus === corpus.fingerprint && made.header.topK === topK)
    return made
  await made?.close()
  display.note(`judging difficulty with ${shown(proxy)}; \`foretoken filter\` does this once for many runs`)
  await using engine = await Engine.open(proxy, engineOptions(config))
  const tokenizer = await Tokenizer.open(proxy)
  await run.create()
  await buildDifficultyIndex({
    ...{ engine, tokenizer, corpus, proxy, topK, signal },
    path: run.difficulty,
    part: 'train',
    onBadDocument: config.corpus.onBadDocument,
  })
  return DifficultyIndex.open(run.difficulty)
}

/** What the run is made with. */
export async function describeRun(config: RunConfig, parts: RunParts): Promise<RunManifest> {
  const { reward } = config.rpt
  return {
    format: 1,
    ...describeMachine(parts.engine),
    stateDtype: config.engine.stateDtype,
    seed: config.seed,
    tokenizer: parts.tokenizer.fingerprint,
    corpus: {
      fingerprint: parts.corpus?.fingerprint ?? noDocuments.fingerprint,
      files: [...(parts.corpus?.fileFingerprints ?? [])],
    },
    reward: isModule(reward)
      ? createHash('sha256')
          .update(await readFile(reward))
          .digest('hex')
      : null,
    sessions: [],
  }
}
