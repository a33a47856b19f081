import { ForetokenError } from '../engine/errors.js'

/** Throws `INVALID_CONFIG` unless a setting is a positive whole number. */
export function requirePositive(name: string, value: number): void {
  if (Number.isInteger(value) && value > 0) return
  throw new ForetokenError('INVALID_CONFIG', `${name} is ${value}; it must be a positive whole number`)
}
