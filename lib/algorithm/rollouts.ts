import { TokenForest } from '../engine/token-forest.js'
import { evaluateReward, makeRewardContext, type RewardContext } from '../reward/reward.js'
import type { Prompt } from '../text/prompt.js'
import type { StepTools } from './method.js'
import { addQuestions } from './questions.js'
import { deriveSeed, drawFor } from './random.js'
import { rewardTools } from './score-requests.js'
import type { Target } from './targets.js'

/** How answers are sampled. */
export interface SamplingOptions {
  /** Default 0.8. */
  temperature?: number
  /** Default 1. */
  topP?: number
  /** Default 0, which is off. */
  topK?: number
  /** Default 0. */
  minP?: number
  /** The longest answer; default 8192. */
  maxTokens?: number
  /** Tokens that end an answer; default those of the tokenizer. */
  stopTokens?: readonly number[]
  /** Texts that end an answer. */
  stopTexts?: readonly string[]
  /** Tokens without a chance. */
  bannedTokens?: readonly number[]
  /** Keep activations for the update, which then makes no forward pass (SampleOptions); default true. */
  keepActivations?: boolean
}

/** One sampled answer and its reward. */
export interface Answer {
  /** What was sampled, with the token that ended it. */
  tokens: Int32Array
  /** Of each token as sampled. */
  logprobs: Float32Array
  /** Why it ended: a stop token, a stop text, or the limit of tokens. */
  stop: 'token' | 'text' | 'length'
  /** What the reward was shown. */
  judged: RewardContext
  /** What the reward gave. */
  reward: number
}

/** The answers to one question. */
export interface AnswerGroup {
  /** The question. */
  target: Target
  /** (G) its answers. */
  answers: Answer[]
}

/**
 * Samples G answers to every target and judges them. For several batches in a step: `attempt` counts them, `firstGroup`
 * the groups before.
 */
export async function rollOut(
  tools: StepTools,
  prompt: Prompt,
  targets: readonly Target[],
  options: SamplingOptions & { rolloutsPerContext: number; attempt?: number; firstGroup?: number },
): Promise<AnswerGroup[]> {
  if (targets.length === 0) return []
  const { tokenizer } = tools
  const G = options.rolloutsPerContext
  const forest = new TokenForest()
  const from = await tools.time('text', () => addQuestions(forest, prompt, targets))
  const { rollouts } = await tools.time('rollouts', () =>
    tools.engine.sample(forest, {
      from,
      n: G,
      maxTokens: options.maxTokens ?? defaultMaxTokens,
      temperature: options.temperature ?? defaultTemperature,
      topK: options.topK,
      topP: options.topP,
      minP: options.minP,
      seed: deriveSeed(tools.seed, drawFor.rollouts, tools.step, options.attempt ?? 0),
      stop: { tokens: options.stopTokens ?? tokenizer.stopIds, texts: options.stopTexts },
      bannedTokens: options.bannedTokens,
      keepActivations: options.keepActivations ?? true,
      onProgress: (done, total) => tools.progress('rollouts', done, total),
    }),
  )
  return tools.time('reward', async () => {
    const judged = targets.flatMap(({ document, position }, i) => {
      const question = prompt.flat(document, position)
      return rollouts.slice(i * G, (i + 1) * G).map(({ tokens, stop }) =>
        makeRewardContext({
          tokenizer,
          document,
          position,
          prompt: question,
          response: tokens,
          stop,
          group: (options.firstGroup ?? 0) + i,
        }),
      )
    })
    const rewards = await evaluateReward(tools.reward, judged, rewardTools(tools.engine, tokenizer))
    const answers = rollouts.map(({ tokens, logprobs, stop }, i) => ({
      tokens,
      logprobs,
      stop,
      judged: judged[i]!,
      reward: rewards[i]!,
    }))
    return targets.map((target, i) => ({ target, answers: answers.slice(i * G, (i + 1) * G) }))
  })
}

export const defaultTemperature = 0.8
export const defaultMaxTokens = 8192
