import type { z } from 'zod'
import { nearestName } from '../engine/nearest-name.js'
import { knownKeys } from './config-fields.js'

/** Something wrong with a config: where, and what in words that end the sentence "<key> …". */
export interface ConfigProblem {
  readonly path: readonly PropertyKey[]
  readonly text: string
}

type Issue = z.core.$ZodIssue

/** What zod found, in words for people: one problem per key. */
export function configProblems(schema: z.core.$ZodType, issues: readonly Issue[], value: unknown): ConfigProblem[] {
  return issues.flatMap((issue) => problemsOf(schema, issue, value, []))
}

function problemsOf(
  schema: z.core.$ZodType,
  issue: Issue,
  value: unknown,
  prefix: readonly PropertyKey[],
): ConfigProblem[] {
  const path = [...prefix, ...issue.path]
  const given = quote(valueAt(value, path))
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => {
        const near = nearestName(key, knownKeys(schema, path))
        return {
          path: [...path, key],
          text: `is not a known key${near === undefined ? '' : `; did you mean ${near}?`}`,
        }
      })
    case 'invalid_type':
      return [{ path, text: given === 'nothing' ? 'is missing' : `must be ${nameOf(issue.expected)}, not ${given}` }]
    case 'invalid_value': {
      const values = issue.values.map(String)
      const near = nearestName(String(valueAt(value, path)), values)
      const hint = near === undefined ? '' : `; did you mean ${near}?`
      return [{ path, text: `must be one of ${values.join(', ')}, not ${given}${hint}` }]
    }
    case 'too_small':
      return [{ path, text: `must be ${issue.inclusive ? 'at least' : 'above'} ${issue.minimum}, not ${given}` }]
    case 'too_big':
      return [{ path, text: `must be ${issue.inclusive ? 'at most' : 'below'} ${issue.maximum}, not ${given}` }]
    case 'invalid_union':
      return unionProblems(schema, issue.errors, value, path)
    default:
      return [{ path, text: issue.message }]
  }
}

/** Of a value that may be one of several things, the problems of the thing that it resembles most. */
function unionProblems(
  schema: z.core.$ZodType,
  branches: readonly (readonly Issue[])[],
  value: unknown,
  path: readonly PropertyKey[],
): ConfigProblem[] {
  const mismatch = (branch: readonly Issue[]) =>
    branch.filter((issue) => issue.path.length === 0 && issue.code === 'invalid_type').length
  const fitting = branches.filter((branch) => mismatch(branch) === 0)
  const best = [...fitting].sort((a, b) => a.length - b.length)[0]
  if (best) return best.flatMap((issue) => problemsOf(schema, issue, value, path))
  const expected = branches.flatMap((branch) =>
    branch.flatMap((issue) => (issue.code === 'invalid_type' ? [nameOf(issue.expected)] : [])),
  )
  return [{ path, text: `must be ${[...new Set(expected)].join(' or ')}, not ${quote(valueAt(value, path))}` }]
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value
  for (const name of path) {
    if (typeof at !== 'object' || at === null) return undefined
    at = (at as Record<PropertyKey, unknown>)[name]
  }
  return at
}

function quote(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 60 ? `${text.slice(0, 57)}...` : text
}

function nameOf(expected: string): string {
  const names: Record<string, string> = {
    string: 'text',
    number: 'a number',
    int: 'a whole number',
    boolean: 'true or false',
    array: 'a list',
    tuple: 'a list',
    object: 'a section with keys',
    record: 'a section with keys',
  }
  return names[expected] ?? expected
}
