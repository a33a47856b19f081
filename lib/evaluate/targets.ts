import { indexedEntropies, scorePlain } from '../algorithm/difficulty.js'
import type { DifficultyIndex } from '../corpus/difficulty-index.js'
import { difficultySplits, type PositionOptions, selectPositions } from '../corpus/positions.js'
import type { Engine } from '../engine/engine.js'
import type { Document } from '../text/document.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { EvaluationTarget } from './types.js'

/** Which positions of held-out documents are asked about. */
export interface EvaluationTargetOptions
  extends Pick<PositionOptions, 'minEntropy' | 'maxEntropy' | 'minContext' | 'maxContext' | 'maxPerDocument'> {
  /** At most so many in all; the first documents provide them. Default all. */
  maxTargets?: number
  /** Decides the choice among a document's positions. Default 0. */
  seed?: number
  /** The k of the entropy. Default 16. */
  topK?: number
  /** Documents are scored together up to so many tokens. Default 16384. */
  batchTokens?: number
  /** Aborting rejects with the signal's reason. */
  signal?: AbortSignal
}

/**
 * Fixes the questions of an evaluation by what a proxy finds hard: positions with an entropy above `minEntropy` (default
 * that of the easy split). Kept and used again, they make evaluations before and after training comparable. The proxy is
 * a model, or an index that one has made.
 */
export async function chooseEvaluationTargets(
  proxy: Pick<Engine, 'score'> | Pick<DifficultyIndex, 'get'>,
  tokenizer: Tokenizer,
  documents: Iterable<Document> | AsyncIterable<Document>,
  options: EvaluationTargetOptions = {},
): Promise<EvaluationTarget[]> {
  const { topK = 16, maxTargets = Number.POSITIVE_INFINITY, batchTokens = 16_384, seed = 0, signal, ...rest } = options
  const rules: PositionOptions = { minEntropy: difficultySplits.easy, ...rest, by: 'threshold', seed }
  const targets: EvaluationTarget[] = []
  let batch: Document[] = []
  let tokens = 0

  const finishBatch = async () => {
    const entropies =
      'get' in proxy
        ? await Promise.all(batch.map((document) => indexedEntropies(proxy, document)))
        : (await scorePlain(proxy, tokenizer, batch, { topK, signal })).map(({ entropy }) => entropy)
    batch.forEach((document, i) => {
      const entropy = entropies[i]!
      for (const position of selectPositions(document, entropy, rules)) {
        if (targets.length < maxTargets) targets.push({ document, position, entropy: entropy[position]! })
      }
    })
    batch = []
    tokens = 0
  }
  for await (const document of documents) {
    if (targets.length >= maxTargets) break
    if (batch.length > 0 && tokens + document.length > batchTokens) await finishBatch()
    batch.push(document)
    tokens += document.length
  }
  if (batch.length > 0 && targets.length < maxTargets) await finishBatch()
  return targets
}
