import { ForetokenError } from './errors.js'
import { nearestName } from './nearest-name.js'

// Small checks for the edge of the library: each names the argument, says what it must be and what it is.
// Those of options let undefined pass, which means the default.

export function invalidArgument(message: string): ForetokenError {
  return new ForetokenError('INVALID_ARGUMENT', message)
}

/** A value in a message: short, and strings in quotes. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) return `an object (${value.constructor?.name ?? 'no class'})`
  return String(value)
}

export function refuse(name: string, expected: string, value: unknown): ForetokenError {
  return invalidArgument(`${name} must be ${expected}, not ${show(value)}`)
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value)
}

/** An options object with known names only; the error for another names the nearest known one. */
export function checkOptions(name: string, value: unknown, known: readonly string[]): void {
  if (!isObject(value)) throw refuse(name, 'an object', value)
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue
    const nearest = nearestName(key, known)
    const hint = nearest === undefined ? `known are ${known.join(', ')}` : `did you mean ${nearest}?`
    throw invalidArgument(`${name} has no ${show(key)}; ${hint}`)
  }
}

/** A finite number within [lowest, highest]; `above` excludes its bound. */
export function checkNumber(
  name: string,
  value: unknown,
  { lowest = Number.NEGATIVE_INFINITY, highest = Number.POSITIVE_INFINITY, above = Number.NEGATIVE_INFINITY } = {},
): void {
  if (value === undefined) return
  const fits = typeof value === 'number' && Number.isFinite(value)
  if (fits && value >= lowest && value <= highest && value > above) return
  const bounds = [
    Number.isFinite(above) ? `above ${above}` : Number.isFinite(lowest) ? `of at least ${lowest}` : '',
    Number.isFinite(highest) ? `of at most ${highest}` : '',
  ].filter((bound) => bound !== '')
  throw refuse(name, ['a number', bounds.join(' and ')].join(' ').trim(), value)
}

export function checkInteger(name: string, value: unknown, lowest: number, highest = 2 ** 31 - 1): void {
  if (value === undefined) return
  if (Number.isInteger(value) && (value as number) >= lowest && (value as number) <= highest) return
  throw refuse(name, `a whole number from ${lowest} to ${highest}`, value)
}

export function checkBoolean(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'boolean') throw refuse(name, 'true or false', value)
}

export function checkString(name: string, value: unknown): void {
  if (value !== undefined && (typeof value !== 'string' || value === '')) throw refuse(name, 'a string', value)
}

export function checkChoice(name: string, value: unknown, choices: readonly string[]): void {
  if (value === undefined || (choices as readonly unknown[]).includes(value)) return
  throw refuse(name, choices.map((choice) => `'${choice}'`).join(' or '), value)
}

/** What every long call takes: an AbortSignal and a progress function. */
export function checkControl(name: string, options: { signal?: unknown; onProgress?: unknown }): void {
  const { signal, onProgress } = options
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw refuse(`${name}.signal`, 'an AbortSignal', signal)
  if (onProgress !== undefined && typeof onProgress !== 'function')
    throw refuse(`${name}.onProgress`, 'a function', onProgress)
}

/** Unsigned 64 bits from a number or a bigint. */
export function toSeed(name: string, value: unknown): bigint | undefined {
  if (value === undefined) return undefined
  const seed = Number.isSafeInteger(value) ? BigInt(value as number) : value
  if (typeof seed === 'bigint' && seed >= 0n && seed < 1n << 64n) return seed
  throw refuse(name, 'a whole number from 0 to 2^64 − 1 (a bigint above 2^53)', value)
}

export function isArrayLike(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))
}

/** Token ids, or other indices from 0, as an Int32Array; an Int32Array is handed through. */
export function checkTokenIds(name: string, value: unknown): Int32Array {
  if (!isArrayLike(value)) throw refuse(name, 'an array of whole numbers', value)
  for (let i = 0; i < value.length; ++i) {
    const id = value[i]
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= 2 ** 31)
      throw refuse(`${name}[${i}]`, 'a whole number from 0 to 2147483647', id)
  }
  return value instanceof Int32Array ? value : Int32Array.from(value as ArrayLike<number>)
}

/** Numbers as a Float32Array; a Float32Array is handed through. */
export function checkFloats(name: string, value: unknown): Float32Array {
  if (!isArrayLike(value)) throw refuse(name, 'an array of numbers', value)
  if (value instanceof Float32Array) return value
  for (let i = 0; i < value.length; ++i)
    if (typeof value[i] !== 'number') throw refuse(`${name}[${i}]`, 'a number', value[i])
  return Float32Array.from(value as ArrayLike<number>)
}
