import { ForetokenError } from '../engine/errors.js'

/** How the learning rate changes over the steps of a run. */
export interface LearningRateSchedule {
  /** After the warm-up: unchanged, or down to `final` along a line or half a cosine. Default constant. */
  kind?: 'constant' | 'linear' | 'cosine'
  /** Steps over which it rises from 0; the first step already has 1 / warmup of it. Default 0. */
  warmup?: number
  /** The share of the learning rate that is left at the last step. Default 0. */
  final?: number
}

/**
 * The factor of the learning rate at a step (from 0) of a run of `steps`.
 * The last step has exactly `final`. Throws `INVALID_CONFIG` for a warm-up or final share out of range.
 */
export function learningRateFactor(schedule: LearningRateSchedule, step: number, steps: number): number {
  const { kind = 'constant', warmup = 0, final = 0 } = schedule
  if (!(warmup >= 0))
    throw new ForetokenError('INVALID_CONFIG', `schedule.warmup is ${warmup}; it must not be negative`)
  if (!(final >= 0 && final <= 1)) {
    throw new ForetokenError('INVALID_CONFIG', `schedule.final is ${final}; it must be a share from 0 to 1`)
  }
  if (step < warmup) return (step + 1) / warmup
  if (kind === 'constant') return 1
  // A run that ends with its warm-up never gets to fall.
  const progress = Math.min(1, (step - warmup) / Math.max(1, steps - 1 - warmup))
  const height = kind === 'linear' ? 1 - progress : 0.5 * (1 + Math.cos(Math.PI * progress))
  return final + (1 - final) * height
}
