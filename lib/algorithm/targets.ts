import type { DifficultyIndex } from '../corpus/difficulty-index.js'
import { type PositionOptions, selectPositions } from '../corpus/positions.js'
import { ForetokenError } from '../engine/errors.js'
import type { Document } from '../text/document.js'
import { indexedEntropies, scorePlain } from './difficulty.js'
import type { FedDocument } from './document-feed.js'
import type { StepTools } from './method.js'

/** A question: which bytes follow the first `position` tokens of a document. */
export interface Target {
  /** The text that the question is about. */
  document: Document
  /** t: how many tokens stand before the question. */
  position: number
  /** Of its position, in nats; NaN where nobody computed it. */
  entropy: number
}

/** Which positions of documents are asked about. */
export interface TargetOptions extends Omit<PositionOptions, 'by' | 'seed' | 'epoch'> {
  /** Default `threshold`. */
  by?: PositionOptions['by']
  /** Where entropies come from: the model being trained, as it is now, or an index made once. Default `model`. */
  difficulty?: 'model' | DifficultyIndex
  /** The k of the model's own entropies. Default 16. */
  topK?: number
}

/**
 * Draws documents and chooses positions until there are `count` targets, or no text is left. Targets of one document
 * come one after another, by position. Throws `INVALID_DATA` when very many documents have no position that qualifies.
 */
export async function drawTargets(tools: StepTools, count: number, options: TargetOptions): Promise<Target[]> {
  const targets: Target[] = []
  const { maxPerDocument = 1 } = options
  let barren = 0
  while (targets.length < count) {
    const fed = await tools.time('text', () =>
      drawDocuments(tools, Math.ceil((count - targets.length) / Math.max(1, maxPerDocument))),
    )
    if (fed.length === 0) break
    const entropies = await findEntropies(tools, fed, options)
    await tools.time('text', () => {
      for (const [i, { document, epoch }] of fed.entries()) {
        const { difficulty: _difficulty, topK: _topK, by = 'threshold', ...rules } = options
        const choice = { ...rules, by, maxPerDocument, seed: tools.seed, epoch }
        const positions = selectPositions(document, entropies[i], choice)
        barren = positions.length > 0 ? 0 : barren + 1
        for (const position of positions) {
          targets.push({ document, position, entropy: entropies[i]?.[position] ?? Number.NaN })
        }
      }
    })
    if (barren >= barrenLimit) {
      throw new ForetokenError(
        'INVALID_DATA',
        `${barren} documents in a row have no position to ask about; lower minEntropy (${options.minEntropy ?? 0.5}) ` +
          `or minContext (${options.minContext ?? 1}), or choose positions at random`,
      )
    }
  }
  return targets.slice(0, count)
}

async function drawDocuments(tools: StepTools, count: number): Promise<FedDocument[]> {
  const documents: FedDocument[] = []
  while (documents.length < count) {
    const next = await tools.documents.next()
    if (!next) break
    documents.push(next)
  }
  return documents
}

async function findEntropies(
  tools: StepTools,
  fed: readonly FedDocument[],
  { by, difficulty = 'model', topK = 16 }: TargetOptions,
): Promise<(Float32Array | undefined)[]> {
  if (difficulty === 'model') {
    if (by === 'random') return fed.map(() => undefined)
    const documents = fed.map(({ document }) => document)
    const scores = await tools.time('score', () => scorePlain(tools.engine, tools.tokenizer, documents, { topK }))
    return scores.map(({ entropy }) => entropy)
  }
  return tools.time('text', () => Promise.all(fed.map(({ document }) => indexedEntropies(difficulty, document))))
}

const barrenLimit = 10_000
