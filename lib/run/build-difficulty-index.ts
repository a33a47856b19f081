import { scorePlain } from '../algorithm/difficulty.js'
import type { Corpus, CorpusPart } from '../corpus/corpus.js'
import { DifficultyIndexWriter } from '../corpus/difficulty-index.js'
import { DifficultyStatistics } from '../corpus/difficulty-statistics.js'
import type { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'
import { Document } from '../text/document.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** What an index of difficulties is made from. */
export interface DifficultyIndexOptions {
  /** Judges the difficulty. */
  engine: Engine
  /** The tokenizer of the model; positions count its tokens. */
  tokenizer: Tokenizer
  /** What is judged. */
  corpus: Corpus
  /** Where the index goes. */
  path: string
  /** The proxy's name, kept in the index. */
  proxy: string
  /** Which documents; default `all`. */
  part?: CorpusPart
  /** Default 16. */
  topK?: number
  /** Long documents are scored in parts of so many tokens. Default what the model can hold, at most 4096. */
  window?: number
  /** What a text does that the tokenizer cannot give back byte for byte; default `error`. */
  onBadDocument?: 'error' | 'skip'
  /** Default all. */
  maxDocuments?: number
  /** Aborting leaves no index behind. */
  signal?: AbortSignal
  /** Told the documents and tokens done. */
  onProgress?: (documents: number, tokens: number) => void
}

/** What a filter run found. */
export interface DifficultyIndexResult {
  /** Documents in the index. */
  documents: number
  /** Their tokens. */
  tokens: number
  /** Documents left out. */
  /** Bad records, and documents that the tokenizer cannot keep. */
  skipped: number
  /** Of all entropies. */
  statistics: DifficultyStatistics
}

/**
 * Scores every document of a corpus once and writes the entropy of each position as a compact index beside it; memory
 * holds one batch. A text that occurs twice is scored once.
 */
export async function buildDifficultyIndex(options: DifficultyIndexOptions): Promise<DifficultyIndexResult> {
  const { engine, tokenizer, corpus, topK = 16, part = 'all', signal } = options
  const limit = engine.config.maxPositionEmbeddings - 1
  const window = Math.min(options.window ?? 4096, limit)
  const writer = await DifficultyIndexWriter.create(options.path, {
    tokenizer: tokenizer.fingerprint,
    proxy: options.proxy,
    corpus: corpus.fingerprint,
    topK,
    dtype: 'float16',
  })
  const result: DifficultyIndexResult = { documents: 0, tokens: 0, skipped: 0, statistics: new DifficultyStatistics() }
  const seen = new Set<string>()
  let batch: Document[] = []
  let batched = 0

  const finishBatch = async () => {
    const parts = batch.map((document) => document.windows(window))
    const scores = await scorePlain(engine, tokenizer, parts.flat(), { topK, signal })
    let next = 0
    for (const [i, document] of batch.entries()) {
      const entropies = new Float32Array(document.length)
      let at = 0
      for (const { length } of parts[i]!) {
        entropies.set(scores[next++]!.entropy, at)
        at += length
      }
      await writer.add(document.id, entropies)
      result.statistics.add(entropies)
      ++result.documents
      result.tokens += document.length
    }
    batch = []
    batched = 0
    options.onProgress?.(result.documents, result.tokens)
  }

  try {
    const stream = corpus.stream({ part })
    for await (const record of stream) {
      signal?.throwIfAborted()
      if (seen.size >= (options.maxDocuments ?? Number.POSITIVE_INFINITY)) break
      if (seen.has(record.hash)) continue
      const document = tokenize(tokenizer, record.text, record.hash, options.onBadDocument)
      if (!document) {
        ++result.skipped
        continue
      }
      seen.add(record.hash)
      batch.push(document)
      batched += document.length
      if (batched >= batchTokens) await finishBatch()
    }
    if (batch.length > 0) await finishBatch()
    const { empty: _, ...bad } = stream.skipped
    result.skipped += Object.values(bad).reduce((sum, count) => sum + count, 0)
    await writer.finish()
  } catch (error) {
    await writer.discard()
    throw error
  }
  return result
}

function tokenize(
  tokenizer: Tokenizer,
  text: string,
  id: string,
  onBad: 'error' | 'skip' = 'error',
): Document | undefined {
  try {
    return Document.tokenize(tokenizer, text, { id })
  } catch (error) {
    if (onBad === 'skip' && error instanceof ForetokenError && error.code === 'INVALID_DATA') return undefined
    throw error
  }
}

const batchTokens = 16_384
