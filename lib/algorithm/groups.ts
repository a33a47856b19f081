/**
 * Whether a group's rewards differ, so that it can have a gradient.
 * Sums of floats that mean the same number differ in their last bits; that is no signal.
 */
export function hasSignal(rewards: ArrayLike<number>): boolean {
  let lowest = Number.POSITIVE_INFINITY
  let highest = Number.NEGATIVE_INFINITY
  for (let i = 0; i < rewards.length; ++i) {
    lowest = Math.min(lowest, rewards[i]!)
    highest = Math.max(highest, rewards[i]!)
  }
  return highest - lowest > 1e-12 * Math.max(1, Math.abs(lowest), Math.abs(highest))
}

/** Replacing groups without signal by fresh ones (DAPO, arXiv 2503.14476). */
export interface DynamicSampling {
  /** From this step (counted from 0) on; the paper has 500. */
  fromStep: number
  /** How often a step samples at most, the first time included. */
  maxTries: number
}

/** What is left of a batch after tries to fill it with groups that have a signal. */
export interface Refilled<Group> {
  /** Those that train: with a signal, or all where nothing is replaced. */
  kept: Group[]
  /** All that were sampled. */
  sampled: Group[]
  /** How often was sampled. */
  tries: number
}

/**
 * Draws groups until `wanted` of them have a signal, at most `tries` times, each time as many as are missing.
 * With one try nothing is replaced, and groups without signal stay: they count in the normaliser, and cost nothing.
 */
export async function fillBatch<Group>(options: {
  wanted: number
  tries: number
  draw: (count: number) => Promise<Group[]>
  hasSignal: (group: Group) => boolean
}): Promise<Refilled<Group>> {
  const { wanted, draw } = options
  const tries = Math.max(1, options.tries)
  const sampled: Group[] = []
  let kept: Group[] = []
  let done = 0
  while (done < tries && kept.length < wanted) {
    const groups = await draw(wanted - kept.length)
    ++done
    sampled.push(...groups)
    kept = kept.concat(tries > 1 ? groups.filter(options.hasSignal) : groups)
    if (groups.length === 0) break
  }
  return { kept, sampled, tries: done }
}
