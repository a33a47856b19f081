import { pathToFileURL } from 'node:url'
import { ForetokenError } from '../engine/errors.js'
import { type Reward, type RewardFunction, rewardFromFunction } from '../reward/reward.js'
import { createReward } from '../reward/rewards.js'

/**
 * Finds a reward by its name, or loads it from a module whose default export is a `Reward`, or a function of one answer.
 * Throws `INVALID_CONFIG` for a module that cannot be loaded or exports something else.
 */
export async function loadReward(name: string, options: Record<string, unknown> = {}): Promise<Reward> {
  if (!isModule(name)) return createReward(name, options)
  let loaded: { default?: unknown }
  try {
    loaded = (await import(pathToFileURL(name).href)) as { default?: unknown }
  } catch (cause) {
    throw new ForetokenError('INVALID_CONFIG', `the reward ${name} cannot be loaded: ${(cause as Error).message}`, {
      cause,
    })
  }
  const reward = loaded.default
  if (typeof reward === 'function') return rewardFromFunction(reward as RewardFunction)
  if (typeof reward === 'object' && reward !== null && typeof (reward as Reward).evaluate === 'function') {
    return reward as Reward
  }
  throw new ForetokenError(
    'INVALID_CONFIG',
    `the default export of ${name} is no reward; export a function (context, tools) => number`,
  )
}

/** Whether a reward is given by the path of a module instead of a name. */
export function isModule(name: string): boolean {
  return /\.[cm]?[jt]s$/.test(name)
}
