import { ForetokenError } from '../engine/errors.js'

/** Which text of a record is the document: one field, or a template over several. */
export interface FieldOptions {
  /** A field, or a path such as `meta.text` or `turns.0.content`. Default `text`. */
  field?: string
  /** A text with `{field}` in it; `{{` and `}}` stand for braces, other braces for themselves. */
  template?: string
}

/** A record lacks a field or has something else than text in it. */
export class FieldProblem extends Error {}

/** A compiled `FieldOptions`. */
export interface FieldReader {
  /** The top-level fields it needs. */
  readonly columns: readonly string[]
  /** The text of a record. Throws `FieldProblem` where a field is missing or is not text. */
  read(record: unknown): string
}

/** Compiles field options. Throws `INVALID_CONFIG` for both a field and a template, and for a template without fields. */
export function fieldReader({ field, template }: FieldOptions): FieldReader {
  if (field !== undefined && template !== undefined) {
    throw new ForetokenError('INVALID_CONFIG', 'a corpus source has both field and template; give one of them')
  }
  if (template === undefined) {
    const name = field ?? 'text'
    return { columns: [columnOf(name)], read: (record) => textAt(record, name) }
  }
  const parts = parseTemplate(template)
  const names = parts.flatMap((part) => (part.field === undefined ? [] : [part.field]))
  if (names.length === 0) {
    throw new ForetokenError('INVALID_CONFIG', `the corpus template ${JSON.stringify(template)} names no {field}`)
  }
  return {
    columns: [...new Set(names.map(columnOf))],
    read: (record) => parts.map((part) => (part.field === undefined ? part.text : textAt(record, part.field))).join(''),
  }
}

type TemplatePart = { text: string; field?: undefined } | { text?: undefined; field: string }

function parseTemplate(template: string): TemplatePart[] {
  const parts: TemplatePart[] = []
  let last = 0
  for (const match of template.matchAll(/\{\{|\}\}|\{([A-Za-z_][\w.-]*)\}/g)) {
    parts.push({ text: template.slice(last, match.index) })
    parts.push(match[1] === undefined ? { text: match[0][0]! } : { field: match[1] })
    last = match.index + match[0].length
  }
  parts.push({ text: template.slice(last) })
  return parts
}

function columnOf(path: string): string {
  return path.split('.')[0]!
}

function textAt(record: unknown, path: string): string {
  let value: unknown = record
  if (typeof value !== 'object' || value === null) throw new FieldProblem('the record is not an object')
  if (Object.hasOwn(value, path)) value = (value as Record<string, unknown>)[path]
  else {
    for (const name of path.split('.')) {
      const inside = typeof value === 'object' && value !== null && Object.hasOwn(value, name)
      value = inside ? (value as Record<string, unknown>)[name] : undefined
    }
  }
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') return String(value)
  const what = value === undefined ? 'is missing' : value === null ? 'is null' : 'is not text'
  throw new FieldProblem(`field '${path}' ${what}`)
}
