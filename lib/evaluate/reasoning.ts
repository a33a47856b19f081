import { addQuestions } from '../algorithm/questions.js'
import { deriveSeed, drawFor } from '../algorithm/random.js'
import type { Engine } from '../engine/engine.js'
import { TokenForest } from '../engine/token-forest.js'
import { prefixMatch } from '../reward/prefix-match.js'
import { makeRewardContext, type RewardContext } from '../reward/reward.js'
import type { Prompt } from '../text/prompt.js'
import type { Tokenizer } from '../text/tokenizer.js'
import type { EvaluationOptions, EvaluationTarget } from './types.js'

/** One answer to an evaluation's question. */
export interface EvaluatedAnswer {
  right: boolean
  /** Tokens. */
  length: number
  boxed: boolean
  truncated: boolean
  judged: RewardContext
}

/**
 * Answers every target `samples` times; gives the answers of each. What an answer is depends on seed, target and number
 * only, not on which targets are asked together.
 */
export async function answerTargets(
  engine: Pick<Engine, 'sample'>,
  tokenizer: Tokenizer,
  prompt: Prompt,
  targets: readonly EvaluationTarget[],
  options: EvaluationOptions,
): Promise<EvaluatedAnswer[][]> {
  const { samples = 1, temperature = 0.8, maxTokens = 8192, seed = 0, signal } = options
  const answers: EvaluatedAnswer[][] = []
  for (let begin = 0; begin < targets.length; begin += targetsPerCall) {
    const batch = targets.slice(begin, begin + targetsPerCall)
    const forest = new TokenForest()
    const { rollouts } = await engine.sample(forest, {
      from: addQuestions(forest, prompt, batch),
      n: samples,
      temperature,
      maxTokens,
      // The same draws for the free and the forced answers: what differs is the rule.
      seed: deriveSeed(seed, drawFor.evaluation, 0),
      rolloutIds: Uint32Array.from({ length: batch.length * samples }, (_, i) => begin * samples + i),
      stop: { tokens: options.stopTokens ?? tokenizer.stopIds, texts: options.stopTexts },
      bannedTokens: options.bannedTokens,
      signal,
    })
    batch.forEach(({ document, position }, i) => {
      const question = prompt.flat(document, position)
      const own = rollouts.slice(i * samples, (i + 1) * samples)
      answers.push(
        own.map(({ tokens, stop }) => {
          const answer = { tokenizer, document, position, prompt: question, response: tokens, stop, group: begin + i }
          const judged = makeRewardContext(answer)
          return {
            right: prefixMatch(judged.prediction, document, position),
            length: tokens.length,
            boxed: judged.prediction !== null,
            truncated: judged.truncated,
            judged,
          }
        }),
      )
    })
    options.onProgress?.(Math.min(targets.length, begin + batch.length), targets.length)
  }
  return answers
}

const targetsPerCall = 256
