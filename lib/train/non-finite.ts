import type { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'

/**
 * Turns a NaN or an infinity that the engine met into an error that names step and tensor. Gradients are dropped, so
 * nothing of the broken update is left; weights are as they were.
 */
export async function nonFiniteError(engine: Engine, step: number, cause: unknown): Promise<ForetokenError> {
  await engine.zeroGradients()
  const broken = await findBrokenWeight(engine)
  const reason = cause instanceof Error ? cause.message : String(cause)
  const where = broken === undefined ? '' : ` The weights of ${broken} are not finite.`
  return new ForetokenError('NON_FINITE', `step ${step}: ${reason}.${where} Resume from the last checkpoint`, { cause })
}

/** The first parameter with a weight that is not a finite number. */
async function findBrokenWeight(engine: Engine): Promise<string | undefined> {
  for (const { name } of engine.parameters()) {
    const values = await engine.read(name)
    if (!values.every(Number.isFinite)) return name
  }
  return undefined
}

/** Whether an error of the engine says that a number was not finite. */
export function isNonFinite(error: unknown): boolean {
  return error instanceof Error && (error as { code?: unknown }).code === 'NON_FINITE'
}
