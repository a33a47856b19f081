import type { CrossEntropyTerm, PolicyTerm } from '../engine/loss-terms.js'
import { TokenForest } from '../engine/token-forest.js'
import type { Prompt } from '../text/prompt.js'
import { type AdvantageName, computeAdvantages } from './advantages.js'
import { type Aggregation, lossNormaliser } from './aggregation.js'
import { addPlainRoot } from './difficulty.js'
import { hasSignal } from './groups.js'
import type { StepTools, Update } from './method.js'
import { type OverlongShaping, overlongPunishment } from './overlong.js'
import { addQuestions } from './questions.js'
import { type AnswerGroup, defaultMaxTokens, defaultTemperature, type SamplingOptions } from './rollouts.js'

/** How rollouts become gradients. */
export interface PolicyOptions {
  /** Default `grpo`. */
  advantage?: AdvantageName
  /** Default `token-mean` over all answers of an update. */
  aggregation?: Aggregation
  /** Default `clip`. */
  loss?: 'clip' | 'cispo' | 'gspo'
  /** [low, high]; default [0.2, 0.2]. DAPO's clip-higher is [0.2, 0.28]. */
  clip?: readonly [number, number]
  /** Above 1 bounds the loss of negative advantages. Default off. */
  dualClip?: number
  /** Penalty on the divergence from the weights the run began with. Default none. */
  kl?: { coefficient: number; estimator?: 'k1' | 'k2' | 'k3' }
  /** Above 0 rewards entropy. Default 0. */
  entropyCoefficient?: number
  /** Updates that a batch is cut into. Default 1: exactly on-policy. */
  updatesPerBatch?: number
  /** How often a batch is gone through. Default 1. */
  epochsPerBatch?: number
  /** Default none. */
  overlong?: OverlongShaping
  /** Next-token prediction on the same documents beside the policy gradient (RMT, arXiv 2509.24375). Default none. */
  auxiliary?: {
    coefficient: number
    /** Leaves out the positions that are asked about, as RMT does. Default true. */
    maskTargets?: boolean
  }
}

interface TrainedGroup extends AnswerGroup {
  advantages: Float64Array
}

/** Cuts a batch into updates. Groups without a gradient are not in the forests, but count in the normalisers. */
export async function policyUpdates(
  tools: StepTools,
  prompt: Prompt,
  groups: readonly AnswerGroup[],
  options: PolicyOptions & { sampling?: SamplingOptions },
): Promise<{ updates: Update[]; trained: number }> {
  const { updatesPerBatch = 1, epochsPerBatch = 1, advantage = 'grpo' } = options
  const maxTokens = options.sampling?.maxTokens ?? defaultMaxTokens
  const rewarded = groups.map(({ answers }) => ({
    rewards: answers.map(
      ({ reward, tokens }) =>
        reward + (options.overlong ? overlongPunishment(options.overlong, tokens.length, maxTokens) : 0),
    ),
    lengths: answers.map(({ tokens }) => tokens.length),
  }))
  const advantages = computeAdvantages(advantage, rewarded)
  // A penalty or bonus gives every token a gradient, whatever its advantage.
  const all = (options.kl?.coefficient ?? 0) !== 0 || (options.entropyCoefficient ?? 0) !== 0
  const withGradient = groups.map((_, i) => all || hasSignal(rewarded[i]!.rewards))

  const once: Update[] = []
  for (let u = 0; u < updatesPerBatch; ++u) {
    const [begin, end] = [u, u + 1].map((part) => Math.round((part * groups.length) / updatesPerBatch)) as [
      number,
      number,
    ]
    if (begin === end) continue
    const lengths = rewarded.slice(begin, end).flatMap((group) => group.lengths)
    const trained: TrainedGroup[] = []
    for (let i = begin; i < end; ++i) {
      if (withGradient[i]) trained.push({ ...groups[i]!, advantages: advantages[i]! })
    }
    const update = await policyUpdate(tools, prompt, trained, groups.slice(begin, end), {
      ...options,
      normaliser: lossNormaliser(options.aggregation ?? 'token-mean', lengths, maxTokens),
    })
    if (update) once.push(update)
  }
  const updates = Array.from({ length: epochsPerBatch }, () => once).flat()
  return { updates, trained: withGradient.filter(Boolean).length }
}

async function policyUpdate(
  tools: StepTools,
  prompt: Prompt,
  trained: readonly TrainedGroup[],
  all: readonly AnswerGroup[],
  options: PolicyOptions & { sampling?: SamplingOptions; normaliser: number },
): Promise<Update | undefined> {
  const temperature = options.sampling?.temperature ?? defaultTemperature
  const forest = new TokenForest()
  const terms: Update['terms'] = {}
  if (trained.length > 0) {
    const questions = addQuestions(
      forest,
      prompt,
      trained.map(({ target }) => target),
    )
    const answers = trained.flatMap((group, g) => group.answers.map((answer) => ({ answer, question: questions[g]! })))
    const segments = answers.map(({ answer, question }) => forest.add(question, answer.tokens))
    const policy: PolicyTerm = {
      kind: 'policy',
      segments,
      advantages: Float32Array.from(trained.flatMap((group) => [...group.advantages])),
      // As sampled: by exactness the ratio of the first update is 1 to the bit, and of later ones what it should be.
      oldLogprobs: answers.map(({ answer }) => answer.logprobs),
      loss: options.loss,
      clip: options.clip,
      dualClip: options.dualClip,
      aggregation: options.aggregation,
      normaliser: options.normaliser,
      entropyCoefficient: options.entropyCoefficient,
    }
    if (options.kl && options.kl.coefficient !== 0) {
      const { logprobs } = await tools.time('score', () =>
        tools.engine.score(forest, { temperature, weights: 'reference' }),
      )
      policy.kl = options.kl
      policy.referenceLogprobs = segments.map((segment) => forest.slice(segment, logprobs))
    }
    terms.policy = policy
  }
  if (options.auxiliary && options.auxiliary.coefficient !== 0) {
    // The policy's arrays are laid out per segment, so the forest may grow under them.
    const auxiliary = auxiliaryTerm(tools, forest, all, options.auxiliary)
    if (auxiliary.weights.includes(1)) terms.auxiliary = auxiliary
  }
  return Object.keys(terms).length > 0 ? { forest, terms, temperature } : undefined
}

/** Adds the documents as plain texts of their own and predicts all their tokens but those asked about. */
function auxiliaryTerm(
  tools: StepTools,
  forest: TokenForest,
  groups: readonly AnswerGroup[],
  { coefficient, maskTargets = true }: NonNullable<PolicyOptions['auxiliary']>,
): CrossEntropyTerm & { weights: Float32Array } {
  const begins = new Map<AnswerGroup['target']['document'], number>()
  for (const { target } of groups) {
    if (begins.has(target.document)) continue
    const segment = forest.add(addPlainRoot(forest, tools.tokenizer), target.document.ids)
    begins.set(target.document, forest.segment(segment).begin)
  }
  const weights = new Float32Array(forest.length)
  for (const [document, begin] of begins) weights.fill(1, begin, begin + document.length)
  if (!tools.tokenizer.addsBos) for (const begin of begins.values()) weights[begin] = 0
  if (maskTargets) for (const { target } of groups) weights[begins.get(target.document)! + target.position] = 0
  return { kind: 'cross-entropy', weights, coefficient }
}
