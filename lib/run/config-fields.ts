import type { z } from 'zod'

/** How a value of the config is written. */
export type FieldKind = 'text' | 'number' | 'boolean' | 'choice' | 'list' | 'map' | 'section' | 'either'

/** One key of the config, as the reference and the flags show it. */
export interface ConfigField {
  /** Names from the root, such as `optimizer.learningRate`. */
  readonly path: string
  /** How its value is written. */
  readonly kind: FieldKind
  /** What may stand there, in words: `number`, `rpt | ntp | sft`, `list of text or section`. */
  readonly type: string
  /** Its text in the schema. */
  readonly description: string
  /** What it is when left out; undefined for nothing. */
  readonly default: unknown
}

type AnySchema = z.core.$ZodType

/** The keys of an object schema, sections before what they contain. */
export function configFields(schema: z.core.$ZodType, prefix = ''): ConfigField[] {
  const object = unwrap(schema).inner
  if (!isObject(object)) return []
  return Object.entries(object._zod.def.shape).flatMap(([name, child]) => {
    const path = prefix === '' ? name : `${prefix}.${name}`
    const { inner, description, fallback } = unwrap(child)
    const kind = kindOf(inner)
    const field = { path, kind, type: typeText(inner), description, default: kind === 'section' ? undefined : fallback }
    return kind === 'section' ? [field, ...configFields(inner, path)] : [field]
  })
}

/** The names that may stand in the object at a path; of a value that may be one of several objects, those of all. */
export function knownKeys(schema: AnySchema, path: readonly PropertyKey[]): string[] {
  const { inner } = unwrap(schema)
  const [first, ...rest] = path
  if (isUnion(inner)) return inner._zod.def.options.flatMap((option) => knownKeys(option, path))
  if (isArray(inner)) return first === undefined ? [] : knownKeys(inner._zod.def.element, rest)
  if (!isObject(inner)) return []
  if (first === undefined) return Object.keys(inner._zod.def.shape)
  const child = inner._zod.def.shape[String(first)]
  return child === undefined ? [] : knownKeys(child, rest)
}

/** A schema without its wrappers (optional, default, checks), and what they say. */
function unwrap(schema: AnySchema): { inner: AnySchema; description: string; fallback: unknown } {
  let inner = schema
  let description = ''
  let fallback: unknown
  for (;;) {
    description ||= describe(inner)
    const def = inner._zod.def as { type: string; innerType?: AnySchema; defaultValue?: unknown; in?: AnySchema }
    if (def.type === 'default' || def.type === 'prefault') fallback ??= def.defaultValue
    const next = def.innerType ?? (def.type === 'pipe' ? def.in : undefined)
    if (next === undefined) return { inner, description, fallback }
    inner = next
  }
}

function describe(schema: AnySchema): string {
  return (schema as z.ZodType).description ?? ''
}

function kindOf(schema: AnySchema): FieldKind {
  switch (schema._zod.def.type) {
    case 'string':
      return 'text'
    case 'number':
    case 'int':
      return 'number'
    case 'boolean':
      return 'boolean'
    case 'enum':
    case 'literal':
      return 'choice'
    case 'array':
    case 'tuple':
      return 'list'
    case 'record':
      return 'map'
    case 'object':
      return 'section'
    default:
      return 'either'
  }
}

function typeText(schema: AnySchema): string {
  if (isEnum(schema)) return Object.values(schema._zod.def.entries).join(' | ')
  if (isUnion(schema)) {
    const options = schema._zod.def.options.map((option) => typeText(unwrap(option).inner))
    return [...new Set(options)].join(' or ')
  }
  if (isArray(schema)) return `list of ${typeText(unwrap(schema._zod.def.element).inner)}`
  if (schema._zod.def.type === 'tuple') return 'list'
  if (schema._zod.def.type === 'literal') {
    return (schema as unknown as z.core.$ZodLiteral)._zod.def.values.map(String).join(' | ')
  }
  return kindOf(schema)
}

function isObject(schema: AnySchema): schema is z.core.$ZodObject {
  return schema._zod.def.type === 'object'
}

function isUnion(schema: AnySchema): schema is z.core.$ZodUnion {
  return schema._zod.def.type === 'union'
}

function isArray(schema: AnySchema): schema is z.core.$ZodArray {
  return schema._zod.def.type === 'array'
}

function isEnum(schema: AnySchema): schema is z.core.$ZodEnum {
  return schema._zod.def.type === 'enum'
}
