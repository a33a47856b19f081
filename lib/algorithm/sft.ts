import { PhiloxStream } from '../corpus/philox.js'
import { ForetokenError } from '../engine/errors.js'
import { TokenForest } from '../engine/token-forest.js'
import { Prompt, type PromptOptions } from '../text/prompt.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { addPlainRoot } from './difficulty.js'
import type { Method, StepPlan, StepTools, Update } from './method.js'
import { drawFor } from './random.js'
import { requirePositive } from './require-positive.js'
import type { TextCorpus, TextStream } from './text-corpus.js'
import { makeTrace } from './traces.js'

/** Next-token prediction on given reasoning traces, mixed with raw text. */
export interface SftOptions {
  /** Texts with a separator between context and answer; they are gone through again and again. */
  traces: TextCorpus
  /** How the question is put; the same as in `rpt`. */
  prompt?: PromptOptions
  /** What stands between context and answer. Default `<think>`. */
  separator?: string
  /** The weight of the contexts' tokens in the loss. Default 0. */
  contextWeight?: number
  /** Traces and documents per step; default 32. */
  sequencesPerStep?: number
  /** The share of them that are raw documents, drawn per sequence; default 0. */
  textShare?: number
  /** The longest part of a document, and the longest trace. Default 2048. */
  maxTokens?: number
  /** What a trace that is too long, or has no separator, does. Default `error`. */
  onBadTrace?: 'error' | 'skip'
}

/** The mean cross-entropy over the weighted tokens of a batch of traces and documents. */
export function sft(options: SftOptions): Method {
  const { sequencesPerStep = 32, textShare = 0, maxTokens = 2048 } = options
  requirePositive('sequencesPerStep', sequencesPerStep)
  requirePositive('maxTokens', maxTokens)
  if (!(textShare >= 0 && textShare <= 1)) {
    throw new ForetokenError('INVALID_CONFIG', `textShare is ${textShare}; it must be a share from 0 to 1`)
  }
  const open = (cursor?: unknown): TextStream =>
    options.traces.stream({
      part: 'all',
      epochs: Number.POSITIVE_INFINITY,
      ...(cursor !== undefined && { cursor: cursor as never }),
    })
  const prompts = new WeakMap<Tokenizer, Prompt>()
  let traces = open()

  async function nextTrace(tokenizer: Tokenizer) {
    const prompt = prompts.get(tokenizer) ?? Prompt.compile(tokenizer, options.prompt)
    prompts.set(tokenizer, prompt)
    for (let tries = 0; tries < badLimit; ++tries) {
      const { value: record } = await traces.next()
      if (!record) break
      try {
        const trace = makeTrace(tokenizer, record, { ...options, prompt })
        if (trace.tokens.length <= maxTokens) return trace
        throw new ForetokenError(
          'INVALID_DATA',
          `trace ${record.hash.slice(0, 12)} has ${trace.tokens.length} tokens, maxTokens is ${maxTokens}`,
        )
      } catch (error) {
        const bad = error instanceof ForetokenError && error.code === 'INVALID_DATA'
        if (!bad || options.onBadTrace !== 'skip') throw error
      }
    }
    throw new ForetokenError('INVALID_DATA', 'there are no usable traces')
  }

  return {
    name: 'sft',
    settings: { ...options, traces: options.traces.fingerprint },
    documents: (tokenizer) => ({ maxTokens, endOfText: tokenizer.eosId !== undefined }),
    state: () => ({ traces: traces.cursor() }),
    async restore(state) {
      await traces.return?.()
      traces = open((state as { traces: unknown }).traces)
    },

    collect(tools: StepTools): Promise<StepPlan | undefined> {
      return tools.time('text', async () => {
        const forest = new TokenForest()
        const weights = { traces: new Map<number, Float32Array>(), text: new Map<number, Float32Array>() }
        const random = new PhiloxStream(tools.seed, drawFor.mixture, tools.step)
        for (let i = 0; i < sequencesPerStep; ++i) {
          if (random.next() < textShare * 2 ** 32) {
            const fed = await tools.documents.next()
            if (!fed) break
            const root = addPlainRoot(forest, tools.tokenizer)
            const segment = forest.add(root, fed.document.ids)
            const ones = new Float32Array(fed.document.length).fill(1)
            if (root === null) ones[0] = 0
            weights.text.set(segment, ones)
          } else {
            const trace = await nextTrace(tools.tokenizer)
            weights.traces.set(forest.add(null, trace.tokens), trace.weights)
          }
        }
        const update = mixture(forest, weights)
        return update && { updates: [update], metrics: { traces: weights.traces.size, documents: weights.text.size } }
      })
    },
  }
}

/** One cross-entropy term per kind of sequence, both divided by the weight of all, so that their sum is the mean. */
function mixture(forest: TokenForest, kinds: Record<string, Map<number, Float32Array>>): Update | undefined {
  const terms: Update['terms'] = {}
  let normaliser = 0
  for (const [name, segments] of Object.entries(kinds)) {
    const weights = new Float32Array(forest.length)
    for (const [segment, values] of segments) weights.set(values, forest.segment(segment).begin)
    const total = weights.reduce((sum, weight) => sum + weight, 0)
    normaliser += total
    if (total > 0) terms[name] = { kind: 'cross-entropy', weights }
  }
  for (const term of Object.values(terms)) term.normaliser = normaliser
  return normaliser > 0 ? { forest, terms } : undefined
}

const badLimit = 10_000
