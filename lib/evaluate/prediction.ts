import { scorePlain } from '../algorithm/difficulty.js'
import type { Engine } from '../engine/engine.js'
import type { Document } from '../text/document.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { EvaluationTarget } from './types.js'

/** For every target whether the most likely next token of the plain text is the true one. */
export async function predictTargets(
  engine: Pick<Engine, 'score'>,
  tokenizer: Tokenizer,
  targets: readonly EvaluationTarget[],
  { batchTokens = 16_384, signal }: { batchTokens?: number; signal?: AbortSignal | undefined } = {},
): Promise<boolean[]> {
  const documents = [...new Set(targets.map(({ document }) => document))]
  const argmax = new Map<Document, Int32Array>()
  for (let at = 0; at < documents.length; ) {
    let end = at
    for (let tokens = 0; end < documents.length; ++end) {
      tokens += documents[end]!.length
      if (end > at && tokens > batchTokens) break
    }
    const batch = documents.slice(at, end)
    const scores = await scorePlain(engine, tokenizer, batch, { argmax: true, signal })
    batch.forEach((document, i) => {
      argmax.set(document, scores[i]!.argmax!)
    })
    at = end
  }
  return targets.map(({ document, position }) => argmax.get(document)![position] === document.ids[position])
}
