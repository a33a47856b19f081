import { TokenForest } from '../engine/token-forest.js'
import { addPlainRoot } from './difficulty.js'
import type { Method, StepPlan, StepTools } from './method.js'
import { requirePositive } from './require-positive.js'

/** Next-token prediction on the training documents. */
export interface NtpOptions {
  /** Documents per step; default 32. Longer ones come in parts, each part counts. */
  documentsPerStep?: number
  /** Instead: as many documents as reach so many tokens. */
  tokensPerStep?: number
  /** The longest part of a document. Default 2048. */
  maxTokens?: number
  /** Documents end with the end-of-text token, which is predicted too. Default true where the tokenizer has one. */
  endOfText?: boolean
}

/**
 * Continual (or first) pre-training: the mean cross-entropy of all tokens of a batch of documents. Documents lie side
 * by side without padding and do not see each other.
 */
export function ntp(options: NtpOptions = {}): Method {
  const { documentsPerStep = 32, tokensPerStep, maxTokens = 2048 } = options
  requirePositive('documentsPerStep', documentsPerStep)
  requirePositive('maxTokens', maxTokens)
  if (tokensPerStep !== undefined) requirePositive('tokensPerStep', tokensPerStep)
  return {
    name: 'ntp',
    settings: options,
    documents: (tokenizer) => ({ maxTokens, endOfText: options.endOfText ?? tokenizer.eosId !== undefined }),

    collect(tools: StepTools): Promise<StepPlan | undefined> {
      return tools.time('text', async () => {
        const forest = new TokenForest()
        let documents = 0
        let tokens = 0
        const full = () => (tokensPerStep === undefined ? documents >= documentsPerStep : tokens >= tokensPerStep)
        // A text of a single token has nothing to predict, and nothing it could be predicted from.
        const shortest = tools.tokenizer.addsBos ? 1 : 2
        while (!full()) {
          const fed = await tools.documents.next()
          if (!fed) break
          if (fed.document.length < shortest) continue
          forest.add(addPlainRoot(forest, tools.tokenizer), fed.document.ids)
          ++documents
          tokens += fed.document.length
        }
        if (documents === 0) return undefined
        return { updates: [{ forest, terms: { text: { kind: 'cross-entropy' } } }], metrics: { documents } }
      })
    },
  }
}
