import { ForetokenError } from '../engine/errors.js'
import { conditionalDenseReward, denseReward } from './dense.js'
import { firstTokenReward } from './first-token.js'
import { informationGainReward, type LogProbOptions, logProbReward } from './log-prob.js'
import { prefixMatchReward } from './prefix-match.js'
import type { Reward } from './reward.js'

/** The rewards by name: each takes its options and gives the reward. */
export const rewards = {
  'prefix-match': () => prefixMatchReward,
  'first-token': () => firstTokenReward,
  dense: () => denseReward,
  'conditional-dense': (options?: { penalty?: number }) => conditionalDenseReward(options),
  'log-prob': (options?: LogProbOptions) => logProbReward(options),
  'information-gain': (options?: Parameters<typeof informationGainReward>[0]) => informationGainReward(options),
} as const

/** The name of a reward that foretoken brings. */
export type RewardName = keyof typeof rewards

/** Finds a reward by name. Throws `INVALID_CONFIG` for a name that is not known. */
export function createReward(name: string, options: Record<string, unknown> = {}): Reward {
  if (!Object.hasOwn(rewards, name)) {
    throw new ForetokenError('INVALID_CONFIG', `reward '${name}' is not known; use ${Object.keys(rewards).join(', ')}`)
  }
  return (rewards[name as RewardName] as (options: Record<string, unknown>) => Reward)(options)
}
