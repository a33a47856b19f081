import type { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'

/**
 * Turns a NaN or an infinity that the engine met into an error that names step and tensor. Gradients are dropped, so
 * nothing of the broken update is left; weights are as they were.
 */
export async function nonFiniteError(engine: Engine, step: number, cause: unknown): Promise<ForetokenError> {
  await engine.zeroGradients()
  const reason = (cause instanceof Error ? cause.message : String(cause)).replace(/\.$/, '')
  const { name, size } = await largestWeight(engine)
  const what = Number.isFinite(size) ? `the largest weight (${size.toPrecision(2)})` : 'a weight that is not finite'
  return new ForetokenError(
    'NON_FINITE',
    `step ${step}: ${reason}. No weight was changed by this update; ${what} is in ${name}. Go back to the last ` +
      'checkpoint, with a lower learning rate',
    { cause },
  )
}

/** The parameter with the largest weight, or the first with one that is not a finite number. */
async function largestWeight(engine: Engine): Promise<{ name: string; size: number }> {
  const largest = { name: '', size: -1 }
  for (const { name } of engine.parameters()) {
    for (const value of await engine.read(name)) {
      const size = Math.abs(value)
      if (!Number.isFinite(size)) return { name, size }
      if (size > largest.size) Object.assign(largest, { name, size })
    }
  }
  return largest
}

/** Whether an error of the engine says that a number was not finite. */
export function isNonFinite(error: unknown): boolean {
  return error instanceof Error && (error as { code?: unknown }).code === 'NON_FINITE'
}
