import { ForetokenError } from '../engine/errors.js'
import { type ConfigField, configFields } from '../run/config-fields.js'
import { type ConfigFlag, flagOf, parseConfigFlags } from '../run/config-flags.js'
import { configSchema } from '../run/config-schema.js'
import { UsageError } from './usage-error.js'

/** Separates what commander left over into flags of the config and at most one other argument. */
export function readConfigArguments(args: readonly string[]): { flags: ConfigFlag[]; file: string | undefined } {
  const { flags, rest } = parsed(args)
  if (rest.length > 1) throw new UsageError(`one argument is expected, not ${rest.length}: ${rest.join(' ')}`)
  return { flags, file: rest[0] }
}

function parsed(args: readonly string[]): ReturnType<typeof parseConfigFlags> {
  try {
    return parseConfigFlags(args, configFields(configSchema))
  } catch (error) {
    if (error instanceof ForetokenError && error.code === 'INVALID_ARGUMENT') throw new UsageError(error.message)
    throw error
  }
}

/** Every key of the config as a flag, with its type, its default and its text. */
export function configKeysText(): string {
  const lines: string[] = []
  for (const field of configFields(configSchema)) {
    if (field.kind === 'section') lines.push('', `${field.path}: ${field.description}`)
    else lines.push(`  ${flagOf(field.path.split('.'))}  ${typeAndDefault(field)}`, `      ${field.description}`)
  }
  return lines.join('\n').trim()
}

function typeAndDefault({ type, default: fallback }: ConfigField): string {
  return `<${type}>${fallback === undefined ? '' : `, default ${JSON.stringify(fallback)}`}`
}
