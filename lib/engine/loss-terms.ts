import type { NativeCrossEntropyTerm, NativeLossTerm, NativePolicyTerm } from './native-engine.js'
import type { TokenForest } from './token-forest.js'
import {
  checkChoice,
  checkFloats,
  checkNumber,
  checkOptions,
  checkTokenIds,
  invalidArgument,
  isArrayLike,
  isObject,
  refuse,
} from './validate.js'

/**
 * A number per token: either an array as long as the forest, as `score` gives them, or, in a policy term, one array
 * per entry of `segments`, as rollouts have them.
 */
export type PerToken = ArrayLike<number> | readonly ArrayLike<number>[]

/** Σ weight · −log p over tokens with a prefix, divided by the normaliser. */
export interface CrossEntropyTerm {
  /** Tells the terms apart. */
  kind: 'cross-entropy'
  /** (N); default 1 for every token that has a prefix. */
  weights?: ArrayLike<number> | undefined
  /** Default 1. */
  coefficient?: number | undefined
  /** Default: the sum of the weights. Give it when a batch is accumulated in several calls. */
  normaliser?: number | undefined
}

/**
 * Policy gradient over whole segments: PPO's clipped surrogate (`clip`, arXiv 1707.06347; asymmetric as in DAPO, arXiv
 * 2503.14476), `cispo` (arXiv 2506.13585) or `gspo` (arXiv 2507.18071).
 */
export interface PolicyTerm {
  /** Tells the terms apart. */
  kind: 'policy'
  /** The segments that were sampled, by their index in the forest. */
  segments: ArrayLike<number>
  /** (segments) one per segment; either this or `tokenAdvantages`. */
  advantages?: ArrayLike<number> | undefined
  /** One per token of the segments, instead of `advantages`. */
  tokenAdvantages?: PerToken | undefined
  /** As sampled. Left out, the policy is exactly the one that sampled, and every ratio is 1. */
  oldLogprobs?: PerToken | undefined
  /** Needed by `kl`. */
  referenceLogprobs?: PerToken | undefined
  /** Default 1 for every token of the segments. */
  weights?: PerToken | undefined
  /** Default `'clip'`. */
  loss?: 'clip' | 'cispo' | 'gspo' | undefined
  /** Low and high: the ratio is bounded by 1 − low and 1 + high. Default `[0.2, 0.2]`. */
  clip?: readonly [number, number] | undefined
  /** Above 1: bounds the loss of negative advantages (arXiv 1912.09729). Default: off. */
  dualClip?: number | undefined
  /** Mean over tokens (default), mean over sequences of their means, or the sum divided by `normaliser`. */
  aggregation?: 'token-mean' | 'sequence-mean' | 'constant' | undefined
  /** Default: Σ weights, or the number of segments; needed by `'constant'`, and when several calls make one batch. */
  normaliser?: number | undefined
  /** Penalty on the divergence from `referenceLogprobs` (estimators: Schulman, "Approximating KL Divergence"). */
  kl?: { coefficient: number; estimator?: 'k1' | 'k2' | 'k3' | undefined } | undefined
  /** Above 0 rewards entropy. */
  entropyCoefficient?: number | undefined
  /** Of the whole term, default 1. */
  coefficient?: number | undefined
}

/** What `accumulate` takes; a list of terms adds up. */
export type LossTerm = CrossEntropyTerm | PolicyTerm

/** Checks the terms and lays their per-token arrays along the forest, as the addon takes them. */
export function packLossTerms(terms: readonly LossTerm[], forest: TokenForest): NativeLossTerm[] {
  if (!Array.isArray(terms)) throw refuse('terms', 'an array of loss terms', terms)
  if (terms.length === 0) throw invalidArgument('terms must not be empty: without a loss there is no gradient')
  return terms.map((term, index) => packTerm(`terms[${index}]`, term, forest))
}

function packTerm(name: string, term: LossTerm, forest: TokenForest): NativeLossTerm {
  if (!isObject(term)) throw refuse(name, 'a loss term', term)
  switch (term.kind) {
    case 'cross-entropy':
      return packCrossEntropy(name, term, forest)
    case 'policy':
      return packPolicy(name, term, forest)
    default:
      throw refuse(`${name}.kind`, `'cross-entropy' or 'policy'`, (term as { kind: unknown }).kind)
  }
}

const crossEntropyNames = ['kind', 'weights', 'coefficient', 'normaliser']

function packCrossEntropy(name: string, term: CrossEntropyTerm, forest: TokenForest): NativeCrossEntropyTerm {
  checkOptions(name, term, crossEntropyNames)
  checkNumber(`${name}.coefficient`, term.coefficient)
  checkNumber(`${name}.normaliser`, term.normaliser, { above: 0 })
  return {
    kind: 'cross-entropy',
    weights: term.weights === undefined ? undefined : alongForest(`${name}.weights`, term.weights, forest),
    coefficient: term.coefficient,
    normaliser: term.normaliser,
  }
}

const policyNames = [
  'kind',
  'segments',
  'advantages',
  'tokenAdvantages',
  'oldLogprobs',
  'referenceLogprobs',
  'weights',
  'loss',
  'clip',
  'dualClip',
  'aggregation',
  'normaliser',
  'kl',
  'entropyCoefficient',
  'coefficient',
]

function packPolicy(name: string, term: PolicyTerm, forest: TokenForest): NativePolicyTerm {
  checkOptions(name, term, policyNames)
  const segments = checkTokenIds(`${name}.segments`, term.segments)
  for (const segment of segments)
    if (segment >= forest.segmentCount)
      throw invalidArgument(
        `${name}.segments: segment ${segment} does not exist: the forest has ${forest.segmentCount} segments`,
      )
  checkChoice(`${name}.loss`, term.loss, ['clip', 'cispo', 'gspo'])
  checkChoice(`${name}.aggregation`, term.aggregation, ['token-mean', 'sequence-mean', 'constant'])
  checkNumber(`${name}.dualClip`, term.dualClip, { above: 1 })
  checkNumber(`${name}.normaliser`, term.normaliser, { above: 0 })
  checkNumber(`${name}.entropyCoefficient`, term.entropyCoefficient)
  checkNumber(`${name}.coefficient`, term.coefficient)
  if (term.aggregation === 'constant' && term.normaliser === undefined)
    throw invalidArgument(`${name}.normaliser is needed by aggregation 'constant'`)
  const perToken = (key: 'tokenAdvantages' | 'oldLogprobs' | 'referenceLogprobs' | 'weights') => {
    const values = term[key]
    return values === undefined ? undefined : spread(`${name}.${key}`, values, segments, forest)
  }
  const referenceLogprobs = perToken('referenceLogprobs')
  const [clipLow, clipHigh] = packClip(`${name}.clip`, term.clip)
  return {
    kind: 'policy',
    segments,
    ...packAdvantages(name, term, segments, perToken('tokenAdvantages')),
    oldLogprobs: perToken('oldLogprobs'),
    referenceLogprobs,
    weights: perToken('weights'),
    loss: term.loss,
    clipLow,
    clipHigh,
    dualClip: term.dualClip,
    aggregation: term.aggregation,
    normaliser: term.normaliser,
    ...packKl(name, term.kl, referenceLogprobs !== undefined),
    entropyCoefficient: term.entropyCoefficient,
    coefficient: term.coefficient,
  }
}

function packAdvantages(
  name: string,
  term: PolicyTerm,
  segments: Int32Array,
  perToken: Float32Array | undefined,
): { advantages: Float32Array; advantagesPerToken: boolean } {
  if ((term.advantages === undefined) === (perToken === undefined))
    throw invalidArgument(`${name} needs either advantages (one per segment) or tokenAdvantages`)
  if (perToken !== undefined) return { advantages: perToken, advantagesPerToken: true }
  const advantages = checkFloats(`${name}.advantages`, term.advantages)
  if (advantages.length !== segments.length)
    throw invalidArgument(`${name}.advantages has ${advantages.length} entries for ${segments.length} segments`)
  return { advantages, advantagesPerToken: false }
}

function packClip(name: string, clip: PolicyTerm['clip']): [number?, number?] {
  if (clip === undefined) return []
  if (!Array.isArray(clip) || clip.length !== 2) throw refuse(name, 'a pair [low, high]', clip)
  checkNumber(`${name}[0]`, clip[0], { lowest: 0 })
  checkNumber(`${name}[1]`, clip[1], { lowest: 0 })
  return [clip[0], clip[1]]
}

function packKl(
  name: string,
  kl: PolicyTerm['kl'],
  hasReference: boolean,
): { klCoefficient?: number; klEstimator?: string | undefined } {
  if (kl === undefined) return {}
  checkOptions(`${name}.kl`, kl, ['coefficient', 'estimator'])
  if (kl.coefficient === undefined) throw invalidArgument(`${name}.kl.coefficient is missing`)
  checkNumber(`${name}.kl.coefficient`, kl.coefficient)
  checkChoice(`${name}.kl.estimator`, kl.estimator, ['k1', 'k2', 'k3'])
  if (!hasReference)
    throw invalidArgument(`${name}.kl needs referenceLogprobs: score the forest with weights 'reference'`)
  return { klCoefficient: kl.coefficient, klEstimator: kl.estimator }
}

function alongForest(name: string, values: unknown, forest: TokenForest): Float32Array {
  const floats = checkFloats(name, values)
  if (floats.length !== forest.length)
    throw invalidArgument(`${name} has ${floats.length} entries, but the forest has ${forest.length} tokens`)
  return floats
}

/** One array per segment, each laid over its segment's tokens; tokens of other segments get 0 and are never read. */
function spread(name: string, values: PerToken, segments: Int32Array, forest: TokenForest): Float32Array {
  if (!Array.isArray(values) || !isArrayLike(values[0])) return alongForest(name, values, forest)
  if (values.length !== segments.length)
    throw invalidArgument(`${name} has ${values.length} arrays for ${segments.length} segments`)
  const all = new Float32Array(forest.length)
  for (let i = 0; i < segments.length; ++i) {
    const { begin, end } = forest.segment(segments[i]!)
    const part = checkFloats(`${name}[${i}]`, values[i])
    if (part.length !== end - begin)
      throw invalidArgument(
        `${name}[${i}] has ${part.length} entries, but segment ${segments[i]} has ${end - begin} tokens`,
      )
    all.set(part, begin)
  }
  return all
}
