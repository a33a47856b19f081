import { DocumentFeed, type DocumentFeedOptions } from '../../lib/algorithm/document-feed.js'
import type { Method, MethodEngine, StepTools } from '../../lib/algorithm/method.js'
import { textsCorpus } from '../../lib/algorithm/text-corpus.js'
import { prefixMatchReward } from '../../lib/reward/prefix-match.js'
import type { Reward } from '../../lib/reward/reward.js'
import { byteLevelTokenizer } from '../text/small-tokenizers.js'

export const tokenizer = byteLevelTokenizer()

/**
 * The tools of a step without a model: every position of a text has the entropy `entropyOf` gives its token, and
 * answers come from a list, over and over again.
 */
export function scriptedTools(options: {
  texts: string[]
  answers?: string[]
  entropyOf?: (token: string) => number
  reward?: Reward
  step?: number
  method?: Method
  feed?: Partial<DocumentFeedOptions>
}): StepTools & { asked: { questions: string[]; n: number }[] } {
  const { texts, answers = ['</think>\\boxed{x}'], entropyOf = () => 1 } = options
  let next = 0
  const asked: { questions: string[]; n: number }[] = []
  const engine: MethodEngine = {
    config: { maxPositionEmbeddings: 100_000 } as MethodEngine['config'],
    async score(forest) {
      const entropy = Float32Array.from(forest.tokens, (id) => entropyOf(tokenizer.decode([id])))
      return { logprobs: new Float32Array(forest.length).fill(-1), entropy, topEntropy: entropy }
    },
    async sample(forest, { from, n = 1 }) {
      asked.push({ questions: Array.from(from, (segment) => tokenizer.decode(forest.flatten(segment))), n })
      const rollouts = Array.from(from).flatMap((segment) =>
        Array.from({ length: n }, () => {
          const tokens = tokenizer.encode(answers[next++ % answers.length]!, { special: true })
          return { segment, tokens, logprobs: new Float32Array(tokens.length).fill(-0.5), stop: 'token' as const }
        }),
      )
      return { rollouts, statistics: { prefillTokens: 0, decodeTokens: 0, decodeSteps: 0, waves: 1, keptTokens: 0 } }
    },
  }
  return {
    asked,
    step: options.step ?? 0,
    engine,
    tokenizer,
    documents: new DocumentFeed({
      tokenizer,
      corpus: textsCorpus(texts),
      epochs: 1,
      ...options.method?.documents?.(tokenizer),
      ...options.feed,
    }),
    reward: options.reward ?? prefixMatchReward,
    seed: 1,
    time: async (_, work) => work(),
    progress: () => {},
  }
}
