import { parse } from 'yaml'
import { ForetokenError } from '../engine/errors.js'
import { nearestName } from '../engine/nearest-name.js'
import type { ConfigField } from './config-fields.js'

/** A key given on the command line. */
export interface ConfigFlag {
  /** Names from the root. */
  readonly path: readonly string[]
  /** As YAML reads it. */
  readonly value: unknown
  /** As it was written, for messages. */
  readonly written: string
}

/**
 * Reads `--optimizer.learning-rate 1e-6`, `--optimizer.learningRate=1e-6`, `--engine.recompute` and so on. Values of
 * keys that are not text are YAML. What is no flag comes back as `rest`.
 * Throws `INVALID_ARGUMENT` for an unknown key, with the nearest known one, and for a key without its value.
 */
export function parseConfigFlags(
  args: readonly string[],
  fields: readonly ConfigField[],
): { flags: ConfigFlag[]; rest: string[] } {
  const flags: ConfigFlag[] = []
  const rest: string[] = []
  for (let i = 0; i < args.length; ++i) {
    const argument = args[i]!
    if (!argument.startsWith('--') || argument === '--') {
      rest.push(argument)
      continue
    }
    const equals = argument.indexOf('=')
    const written = equals < 0 ? argument : argument.slice(0, equals)
    const { field, path } = findField(written.slice(2), fields)
    let text = equals < 0 ? undefined : argument.slice(equals + 1)
    const next = args[i + 1]
    if (text === undefined && next !== undefined && isValueFor(field, next)) {
      text = next
      ++i
    }
    if (text === undefined && field.kind !== 'boolean') {
      throw new ForetokenError('INVALID_ARGUMENT', `${written} needs a value: ${field.type}`)
    }
    flags.push({ path, value: text === undefined ? true : readValue(field, path, text, written), written })
  }
  return { flags, rest }
}

/** How a key is written as a flag. */
export function flagOf(path: readonly PropertyKey[]): string {
  return `--${path.map((name) => String(name).replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)).join('.')}`
}

function findField(name: string, fields: readonly ConfigField[]): { field: ConfigField; path: string[] } {
  const names = name.split('.')
  // A map such as model.create takes any keys below it, spelled as given.
  for (let length = names.length; length > 0; --length) {
    const path = names.slice(0, length).map(camelCase).join('.')
    const field = fields.find((candidate) => candidate.path === path)
    if (field && (length === names.length || field.kind === 'map' || field.kind === 'either')) {
      return { field, path: [...path.split('.'), ...names.slice(length)] }
    }
  }
  const near = nearestPath(name, fields)
  throw new ForetokenError(
    'INVALID_ARGUMENT',
    `--${name} is not a known option${near === undefined ? '' : `; did you mean ${flagOf(near.split('.'))}?`}`,
  )
}

/** The most similar path; a bare last name such as `learning-rate` finds its section. */
function nearestPath(name: string, fields: readonly ConfigField[]): string | undefined {
  const wanted = name.split('.').map(camelCase).join('.')
  const inSection = fields.find((field) => field.path.endsWith(`.${wanted}`))
  return (
    inSection?.path ??
    nearestName(
      wanted,
      fields.map((field) => field.path),
    )
  )
}

function camelCase(name: string): string {
  return name.replaceAll(/-([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

function isValueFor(field: ConfigField, next: string): boolean {
  if (field.kind === 'boolean') return next === 'true' || next === 'false'
  return !next.startsWith('--')
}

function readValue(field: ConfigField, path: readonly string[], text: string, written: string): unknown {
  const inside = path.length > field.path.split('.').length
  const plainText = field.kind === 'text' || field.kind === 'choice' || (field.kind === 'either' && !inside)
  if (plainText && !/^\s*[[{]/.test(text) && !(field.kind === 'either' && isYamlNumber(field, text))) return text
  if (field.kind === 'text' || field.kind === 'choice') return text
  try {
    return parse(text) as unknown
  } catch (cause) {
    throw new ForetokenError(
      'INVALID_ARGUMENT',
      `${written} ${text} is not a ${field.type}: ${(cause as Error).message}`,
    )
  }
}

function isYamlNumber(field: ConfigField, text: string): boolean {
  return field.type.split(' or ').includes('number') && text.trim() !== '' && Number.isFinite(Number(text))
}
