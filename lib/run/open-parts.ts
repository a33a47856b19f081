import { copyFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TextCorpus, textsCorpus } from '../algorithm/text-corpus.js'
import { Corpus, type CorpusSource } from '../corpus/corpus.js'
import { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'
import type { EngineOptions } from '../engine/options.js'
import { Tokenizer } from '../text/tokenizer.js'
import type { RunConfig } from './config-schema.js'
import type { HeldOut } from './evaluation-targets.js'

/** The engine's options of a config; what is 0 there is left to the engine. */
export function engineOptions({ engine }: Pick<RunConfig, 'engine'>): EngineOptions {
  const { device, dtype, allowTf32, stateDtype, batchTokens, recompute } = engine
  return {
    device,
    dtype,
    allowTf32,
    stateDtype,
    batchTokens,
    recompute,
    threads: engine.threads || undefined,
    cacheTokens: engine.cacheTokens || undefined,
    memoryLimit: engine.memoryLimit || undefined,
  }
}

/** Loads the model of a config, makes it, or loads a checkpoint of the run. */
export async function openEngine(config: RunConfig, checkpoint?: string): Promise<Engine> {
  const options = engineOptions(config)
  const { path, create, initialisation } = config.model
  const folder = checkpoint ?? path
  if (folder !== undefined) return Engine.open(folder, options)
  const architecture = typeof create === 'string' ? await readFile(create, 'utf8') : create!
  return Engine.create(architecture, { ...options, seed: config.seed, initialisation })
}

/** The folder that a config's tokenizer is in. */
export function tokenizerFolder({ model }: Pick<RunConfig, 'model'>): string {
  return model.tokenizer ?? model.path!
}

/** Loads the tokenizer and tells the engine the bytes of its tokens. Throws `INVALID_CONFIG` for too small a model. */
export async function openTokenizer(config: Pick<RunConfig, 'model'>, engine: Engine): Promise<Tokenizer> {
  const tokenizer = await Tokenizer.open(tokenizerFolder(config))
  const { vocabSize } = engine.config
  if (tokenizer.vocabSize > vocabSize) {
    throw new ForetokenError(
      'INVALID_CONFIG',
      `the tokenizer in ${tokenizerFolder(config)} has ${tokenizer.vocabSize} tokens, the model only ${vocabSize}; ` +
        'they do not belong together',
    )
  }
  await engine.setTokenBytes(tokenizer.bytes)
  return tokenizer
}

/** Copies a tokenizer's files into a folder that has none, such as the checkpoint of a new model. */
export async function copyTokenizer(from: string, to: string): Promise<void> {
  for (const name of tokenizerFiles) {
    await copyFile(join(from, name), join(to, name)).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
    })
  }
}

const tokenizerFiles = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'generation_config.json',
]

/** Opens the corpus to train on. */
export async function openCorpus(config: RunConfig): Promise<Corpus> {
  const { sources, heldOut, onBadRecord, maxDocumentBytes } = config.corpus
  if (sources === undefined) {
    throw new ForetokenError('INVALID_CONFIG', 'corpus.sources is missing: the files to read, such as data/*.jsonl.gz')
  }
  return Corpus.open({
    sources: corpusSources(sources),
    heldOut,
    onBadRecord,
    maxDocumentBytes,
    ...(config.corpus.shuffle && { shuffle: { seed: config.seed, window: config.corpus.shuffleWindow } }),
  })
}

/** Opens the traces of `sft`. */
export async function openTraces(config: RunConfig): Promise<TextCorpus> {
  if (config.sft.traces === undefined) {
    throw new ForetokenError('INVALID_CONFIG', 'sft.traces is missing: the files with reasoning traces')
  }
  return Corpus.open({
    sources: corpusSources(config.sft.traces),
    onBadRecord: config.corpus.onBadRecord,
    shuffle: { seed: config.seed, window: config.corpus.shuffleWindow },
  })
}

/** Opens the documents that evaluation may use: those given for it, else the held-out share of the corpus. */
export async function openHeldOut(config: RunConfig, corpus: TextCorpus | undefined): Promise<HeldOut | undefined> {
  const { sources } = config.evaluation
  if (sources !== undefined) {
    const { onBadRecord, maxDocumentBytes } = config.corpus
    return {
      corpus: await Corpus.open({ sources: corpusSources(sources), onBadRecord, maxDocumentBytes }),
      part: 'all',
    }
  }
  return corpus && config.corpus.heldOut > 0 ? { corpus, part: 'held-out' } : undefined
}

/** For methods that need no documents. */
export const noDocuments: TextCorpus = textsCorpus([])

type ConfigSources = NonNullable<RunConfig['corpus']['sources']>

/** Sources as the corpus takes them; a text alone is a path. */
function corpusSources(sources: ConfigSources): CorpusSource[] {
  return sources.map(
    (source) => withoutUndefined(typeof source === 'string' ? { path: source } : source) as CorpusSource,
  )
}

function withoutUndefined(value: object): object {
  return Object.fromEntries(Object.entries(value).filter(([, child]) => child !== undefined))
}
