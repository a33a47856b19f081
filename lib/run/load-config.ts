import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { stringify } from 'yaml'
import { ForetokenError } from '../engine/errors.js'
import { type ConfigFlag, flagOf } from './config-flags.js'
import { configProblems } from './config-problems.js'
import { configSchema, type RunConfig } from './config-schema.js'
import { type ConfigSource, parseConfigSource } from './config-source.js'
import { isModule } from './load-reward.js'
import { type Preset, presets } from './presets.js'

/** Where the values of a config come from; later ones win. */
export interface ConfigOrigins {
  /** Applied over the preset of the method. */
  preset?: Preset
  /** A file. */
  source?: ConfigSource
  /** Keys of the command line. */
  flags?: readonly ConfigFlag[]
}

/** Reads a config file. Throws `IO` where there is none. */
export async function readConfigSource(path: string): Promise<ConfigSource> {
  try {
    return parseConfigSource(path, await readFile(path, 'utf8'))
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') throw new ForetokenError('IO', `the config ${path} does not exist`)
    if (code === 'EISDIR') throw new ForetokenError('IO', `${path} is a folder, not a config file`)
    throw error
  }
}

/**
 * Puts preset, file and flags together, checks them and fills in the defaults.
 *
 * Throws `INVALID_CONFIG` with every problem on its own line: where it stands (file, line and column, or the flag),
 * which key, what is wrong, and the nearest known key for an unknown one.
 */
export function resolveConfig(origins: ConfigOrigins): RunConfig {
  const { source, flags = [] } = origins
  const written: Record<string, unknown> = merge({}, source?.values ?? {})
  for (const { path, value } of flags) assign(written, path, value)
  const method = written.method ?? origins.preset?.method ?? 'rpt'
  const values = merge(merge({}, (presets[method as RunConfig['method']] ?? {}) as object), origins.preset ?? {})
  const input = merge(values, written)
  const parsed = configSchema.safeParse(input)
  if (parsed.success) return withAbsolutePaths(parsed.data)

  const problems = configProblems(configSchema, parsed.error.issues, input).map(({ path, text }) => {
    const name = path.map(String).join('.')
    const flag = flags.findLast((candidate) => candidate.path.every((part, i) => part === String(path[i])))
    if (flag) return `${flagOf(path)} ${text}`
    return source ? `${source.locate(path)}: ${name} ${text}` : `${name} (${flagOf(path)}) ${text}`
  })
  throw new ForetokenError('INVALID_CONFIG', problems.join('\n'))
}

/** A resolved config as the YAML of `config.yaml`; reading it again gives the same config. */
export function configYaml(config: RunConfig): string {
  return `# The config of this run with every default filled in.\n${stringify(config, { lineWidth: 0 })}`
}

/** Paths of a run must not depend on where it is resumed from. */
function withAbsolutePaths(config: RunConfig): RunConfig {
  const absolute = (path: string) => resolve(path)
  const { model, corpus, difficulty, evaluation, rpt, sft } = config
  if (model.path !== undefined) model.path = absolute(model.path)
  if (model.tokenizer !== undefined) model.tokenizer = absolute(model.tokenizer)
  if (typeof model.create === 'string') model.create = absolute(model.create)
  if (difficulty.proxy !== undefined) difficulty.proxy = absolute(difficulty.proxy)
  if (difficulty.index !== undefined) difficulty.index = absolute(difficulty.index)
  if (isModule(rpt.reward)) rpt.reward = absolute(rpt.reward)
  if (config.output !== undefined) config.output = absolute(config.output)
  const absoluteSources = (sources: typeof corpus.sources) =>
    sources?.map((source) => {
      if (typeof source === 'string') return absolute(source)
      if (!('path' in source)) return source
      return { ...source, path: typeof source.path === 'string' ? absolute(source.path) : source.path.map(absolute) }
    })
  corpus.sources = absoluteSources(corpus.sources)
  evaluation.sources = absoluteSources(evaluation.sources)
  sft.traces = absoluteSources(sft.traces)
  return config
}

/** Lays one tree of values over another; lists and single values replace, sections merge. */
function merge(base: object, over: object): Record<string, unknown> {
  const result = { ...base } as Record<string, unknown>
  for (const [key, value] of Object.entries(over)) {
    const known = result[key]
    result[key] = isSection(value) ? merge(isSection(known) ? known : {}, value) : value
  }
  return result
}

function assign(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let at = target
  for (const name of path.slice(0, -1)) {
    if (!isSection(at[name])) at[name] = {}
    at = at[name] as Record<string, unknown>
  }
  const last = path.at(-1)!
  at[last] = isSection(value) && isSection(at[last]) ? merge(at[last], value) : value
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
