import { hasSignal } from './groups.js'

/** Rewards of the answers to one question, and their lengths in tokens. */
export interface RewardGroup {
  /** (G) the reward of each answer. */
  readonly rewards: ArrayLike<number>
  /** (G) the tokens of each answer; `opo` weighs with them. */
  readonly lengths: ArrayLike<number>
}

type Estimator = (groups: readonly RewardGroup[]) => Float64Array[]

/**
 * How rewards become advantages, r being the rewards of a group of G:
 *
 * - `grpo`: (r - mean) / (std + 1e-6), std with G - 1 (arXiv 2402.03300, as in verl);
 * - `dr-grpo`: r - mean (arXiv 2503.20783);
 * - `rloo`: r - mean of the others (arXiv 2402.14740);
 * - `opo`: r - the mean weighted by length (arXiv 2505.23585);
 * - `batch`: (r - mean) / (std of all rewards of the batch + 1e-6) (arXiv 2508.08221).
 */
export const advantages = {
  grpo: (groups) =>
    groups.map((group) => {
      const mean = meanOf(group.rewards)
      const scale = deviation(group.rewards, mean) + epsilon
      return Float64Array.from(group.rewards, (reward) => (reward - mean) / scale)
    }),
  'dr-grpo': (groups) =>
    groups.map(({ rewards }) => {
      const mean = meanOf(rewards)
      return Float64Array.from(rewards, (reward) => reward - mean)
    }),
  rloo: (groups) =>
    groups.map(({ rewards }) => {
      const mean = meanOf(rewards)
      const factor = rewards.length / (rewards.length - 1)
      return Float64Array.from(rewards, (reward) => factor * (reward - mean))
    }),
  opo: (groups) =>
    groups.map(({ rewards, lengths }) => {
      let weighted = 0
      let total = 0
      for (let i = 0; i < rewards.length; ++i) {
        weighted += lengths[i]! * rewards[i]!
        total += lengths[i]!
      }
      return Float64Array.from(rewards, (reward) => reward - weighted / total)
    }),
  batch: (groups) => {
    const all = groups.flatMap(({ rewards }) => Array.from(rewards))
    const scale = deviation(all, meanOf(all)) + epsilon
    return groups.map(({ rewards }) => {
      const mean = meanOf(rewards)
      return Float64Array.from(rewards, (reward) => (reward - mean) / scale)
    })
  },
} as const satisfies Record<string, Estimator>

/** A way to make advantages, by name. */
export type AdvantageName = keyof typeof advantages

/** One advantage per answer; exactly 0 in groups whose rewards are all equal, and in groups of one. */
export function computeAdvantages(name: AdvantageName, groups: readonly RewardGroup[]): Float64Array[] {
  const values = advantages[name](groups)
  // Rounding of the mean would else leave specks of the size of 1e-17, which grpo divides by 1e-6.
  return values.map((group, i) => (hasSignal(groups[i]!.rewards) ? group : new Float64Array(group.length)))
}

export function meanOf(values: ArrayLike<number>): number {
  let sum = 0
  for (let i = 0; i < values.length; ++i) sum += values[i]!
  return sum / values.length
}

/** The standard deviation with n - 1; 0 for fewer than two values. */
export function deviation(values: ArrayLike<number>, mean: number): number {
  if (values.length < 2) return 0
  let squares = 0
  for (let i = 0; i < values.length; ++i) squares += (values[i]! - mean) ** 2
  return Math.sqrt(squares / (values.length - 1))
}

const epsilon = 1e-6
