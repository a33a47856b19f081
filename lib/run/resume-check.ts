import { describeChanges } from '../corpus/corpus.js'
import { ForetokenError } from '../engine/errors.js'
import type { RunConfig } from './config-schema.js'
import type { RunManifest } from './manifest.js'

/** Keys that change nothing of what is computed. */
const free = [
  'output',
  'checkpoint',
  'logging.progressSeconds',
  'logging.report',
  'engine.threads',
  'engine.memoryLimit',
  'engine.cacheTokens',
  'sampling.keepActivations',
]

/** What differs between the config a run began with and the one it is to go on with, in words. */
export function configChanges(before: RunConfig, after: RunConfig): string[] {
  const old = flatten(before)
  const now = flatten(after)
  const paths = [...new Set([...old.keys(), ...now.keys()])].filter((path) => !isFree(path, after))
  return paths.flatMap((path) => {
    const was = old.get(path) ?? 'not set'
    const is = now.get(path) ?? 'not set'
    return was === is ? [] : [`config: ${path} was ${was} and is ${is}`]
  })
}

/** What differs in data, tokenizer and machine, in words. */
export function manifestChanges(before: RunManifest, after: RunManifest): string[] {
  const changes = describeChanges(before.corpus.files, after.corpus.files).map((change) => `data: ${change}`)
  if (changes.length === 0 && before.corpus.fingerprint !== after.corpus.fingerprint) {
    changes.push('data: the order of the documents has changed')
  }
  if (before.reward !== after.reward) changes.push('reward: the module has changed')
  if (before.tokenizer !== after.tokenizer) changes.push('tokenizer: its vocabulary or rules have changed')
  for (const what of ['foretoken', 'device', 'dtype', 'parameters'] as const) {
    if (before[what] !== after[what]) changes.push(`${what}: was ${before[what]} and is ${after[what]}`)
  }
  const [kind, kindNow] = [before, after].map(machineKind)
  if (kind !== kindNow) changes.push(`machine: was ${kind} and is ${kindNow}`)
  return changes
}

/** Device and instruction set. The number of threads changes nothing. */
function machineKind({ deviceDescription }: RunManifest): string {
  return deviceDescription.replace(/, \d+ threads?/, '')
}

/** Throws `DATA_CHANGED` listing the changes where there are any. */
export function refuseChanges(directory: string, changes: readonly string[]): void {
  if (changes.length === 0) return
  throw new ForetokenError(
    'DATA_CHANGED',
    [
      `the run in ${directory} cannot go on bit for bit, since something has changed:`,
      ...changes.map((change) => `  ${change}`),
      'Undo the changes, start a new run, or pass --allow-changes to go on with them.',
    ].join('\n'),
  )
}

/** Whether a longer run begins exactly like a shorter one: where the learning rate does not fall towards the last step. */
export function keepsWhenLonger(schedule: RunConfig['schedule']): boolean {
  return schedule.kind === 'constant'
}

function isFree(path: string, config: RunConfig): boolean {
  if (path === 'steps') return keepsWhenLonger(config.schedule)
  return free.some((key) => path === key || path.startsWith(`${key}.`))
}

/** Leaves by path; lists count as leaves. */
function flatten(value: object, prefix = '', leaves = new Map<string, string>()): Map<string, string> {
  for (const [key, child] of Object.entries(value)) {
    const path = prefix === '' ? key : `${prefix}.${key}`
    if (typeof child === 'object' && child !== null && !Array.isArray(child)) flatten(child as object, path, leaves)
    else if (child !== undefined) leaves.set(path, JSON.stringify(child))
  }
  return leaves
}
