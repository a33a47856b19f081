import { DocumentFeed } from '../algorithm/document-feed.js'
import type { TextCorpus } from '../algorithm/text-corpus.js'
import type { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'
import { chooseEvaluationTargets } from '../evaluate/targets.js'
import type { EvaluationTarget } from '../evaluate/types.js'
import type { Document } from '../text/document.js'
import { Prompt } from '../text/prompt.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { RunConfig } from './config-schema.js'
import { jsonLine, readJsonLines } from './json-lines-log.js'
import { promptOptions } from './make-method.js'
import { writeAtomically } from './write-atomically.js'

/** A document of an evaluation and its questions, as a line of `evaluation.jsonl`. */
interface TargetLine {
  /** `Document.id`. */
  document: string
  positions: number[]
  entropies: number[]
}

/** The documents that an evaluation may ask about. */
export interface HeldOut {
  corpus: TextCorpus
  part: 'held-out' | 'all'
}

/**
 * Chooses the questions of a config's evaluations: hard positions of held-out documents, by the entropy that the engine
 * gives them now. Documents that are longer than a prompt count by their first part.
 */
export async function chooseTargets(
  config: RunConfig,
  engine: Engine,
  tokenizer: Tokenizer,
  heldOut: HeldOut,
  signal?: AbortSignal,
): Promise<EvaluationTarget[]> {
  const { documents, positionsPerDocument } = config.evaluation
  const { topK, minContext, maxContext } = config.difficulty
  return chooseEvaluationTargets(engine, tokenizer, firstParts(config, tokenizer, heldOut, documents), {
    maxPerDocument: positionsPerDocument,
    seed: config.seed,
    topK,
    minContext,
    ...(maxContext !== undefined && { maxContext }),
    ...(signal && { signal }),
  })
}

/** Keeps targets in their order, so that every later evaluation of a run asks the same. */
export async function writeTargets(path: string, targets: readonly EvaluationTarget[]): Promise<void> {
  const lines: TargetLine[] = []
  for (const { document, position, entropy } of targets) {
    // Only neighbours share a line: a text that comes again later keeps its place, since answers depend on the order.
    if (lines.at(-1)?.document !== document.id) lines.push({ document: document.id, positions: [], entropies: [] })
    const line = lines.at(-1)!
    line.positions.push(position)
    line.entropies.push(entropy)
  }
  await writeAtomically(path, lines.map((line) => `${jsonLine(line)}\n`).join(''))
}

/** Finds kept targets in the held-out documents again. Throws `DATA_CHANGED` where one of them is gone. */
export async function readTargets(
  path: string,
  config: RunConfig,
  tokenizer: Tokenizer,
  heldOut: HeldOut,
): Promise<EvaluationTarget[]> {
  const lines = await readJsonLines<TargetLine>(path)
  const wanted = new Set(lines.map(({ document }) => document))
  const documents = new Map<string, Document>()
  for await (const document of firstParts(config, tokenizer, heldOut, Number.POSITIVE_INFINITY)) {
    if (wanted.has(document.id)) documents.set(document.id, document)
    if (documents.size === wanted.size) break
  }
  return lines.flatMap(({ document: id, positions, entropies }) => {
    const document = documents.get(id)
    if (!document || positions.some((position) => position >= document.length)) {
      throw new ForetokenError(
        'DATA_CHANGED',
        `${path} asks about document ${id.slice(0, 12)}, which is not among the held-out documents any more; ` +
          'restore the data, or remove that file to choose other questions',
      )
    }
    return positions.map((position, i) => ({ document, position, entropy: entropies[i]! }))
  })
}

async function* firstParts(
  config: RunConfig,
  tokenizer: Tokenizer,
  { corpus, part }: HeldOut,
  count: number,
): AsyncGenerator<Document> {
  const room = config.sampling.maxPromptTokens - Prompt.compile(tokenizer, promptOptions(config)).lengthAt(0)
  if (room < 1) {
    throw new ForetokenError('INVALID_CONFIG', 'sampling.maxPromptTokens leaves no room for the text of a document')
  }
  const { onBadDocument } = config.corpus
  const feed = new DocumentFeed({ tokenizer, corpus, part, epochs: 1, maxTokens: room + 1, onBadDocument })
  try {
    for (let given = 0; given < count; ) {
      const next = await feed.next()
      if (!next) return
      if (next.start > 0) continue
      ++given
      yield next.document
    }
  } finally {
    await feed.close()
  }
}
