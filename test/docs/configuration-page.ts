import { z } from 'zod'
import { type ConfigField, configFields } from '../../lib/run/config-fields.js'
import { configSchema } from '../../lib/run/config-schema.js'
import { presets, pretrainPreset } from '../../lib/run/presets.js'

/** A key of an object that stands in a list, which `configFields` does not go into. */
export interface InnerKey {
  readonly name: string
  readonly type: string
  readonly description: string
}

type JsonSchema = {
  type?: string
  description?: string
  enum?: string[]
  anyOf?: JsonSchema[]
  items?: JsonSchema
  properties?: Record<string, JsonSchema>
}

/** The keys of a source of text, those of files and those of datasets. */
export function sourceKeys(): InnerKey[] {
  const schema = z.toJSONSchema(configSchema.shape.corpus, { io: 'input', unrepresentable: 'any' }) as JsonSchema
  const objects: JsonSchema[] = []
  const visit = (at: JsonSchema) => {
    if (at.properties) objects.push(at)
    else for (const inner of [...(at.anyOf ?? []), ...(at.items ? [at.items] : [])]) visit(inner)
  }
  visit(schema.properties!.sources!)
  const keys = new Map<string, InnerKey>()
  for (const { properties = {} } of objects) {
    for (const [name, value] of Object.entries(properties)) {
      keys.set(name, { name, type: typeText(value), description: value.description ?? '' })
    }
  }
  return [...keys.values()]
}

function typeText(schema: JsonSchema): string {
  if (schema.enum) return schema.enum.join(' | ')
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeText))].join(' or ')
  return schema.type === 'array' ? 'list' : schema.type === 'object' ? 'section' : 'text'
}

/** docs/configuration.md, as the schema says. */
export function configurationPage(): string {
  const fields = configFields(configSchema)
  const top = fields.filter(({ path, kind }) => !path.includes('.') && kind !== 'section')
  const sections = fields.filter(({ path, kind }) => !path.includes('.') && kind === 'section')
  return [
    ...introduction,
    '## The run',
    '',
    ...table(top),
    ...sections.flatMap((section) => [
      `## ${section.path}`,
      '',
      `${capital(section.description)}.`,
      '',
      ...table(fields.filter(({ path }) => path.startsWith(`${section.path}.`))),
      ...(section.path === 'corpus' ? sourcesText() : []),
    ]),
    '## Presets',
    '',
    'Where these defaults differ from those above:',
    '',
    '| with | key | default |',
    '| --- | --- | --- |',
    ...Object.entries(presets).flatMap(([name, preset]) => presetRows(`\`method: ${name}\``, preset)),
    ...presetRows('`foretoken pretrain`', pretrainPreset),
    '',
  ].join('\n')
}

const introduction = [
  '<!-- Written from the schema by `npx vitest run test/docs/configuration.test.ts -u`; mend lib/run/config-*.ts instead. -->',
  '',
  '# Configuration',
  '',
  'A config is one YAML 1.2 or JSON file. Every key has a default but the model and the text. Unknown keys and wrong',
  'values are refused before anything is opened, with file, line and the nearest known key.',
  '',
  'Every key is also a flag of `foretoken train`, `foretoken pretrain` and `foretoken evaluate`:',
  '`optimizer.learningRate` is `--optimizer.learning-rate`. Flags win over the file, and the file over the preset of the',
  'method. `foretoken train --keys` prints what is below. How runs work: [running.md](running.md); how to choose values',
  'for reinforcement pre-training: [rpt-guide.md](rpt-guide.md).',
  '',
]

function sourcesText(): string[] {
  return [
    'A source is a path, or a section with these keys; `evaluation.sources` and `sft.traces` take the same:',
    '',
    '| key | type | meaning |',
    '| --- | --- | --- |',
    ...sourceKeys().map(({ name, type, description }) => row([`\`${name}\``, type, description])),
    '',
  ]
}

function table(fields: readonly ConfigField[]): string[] {
  return [
    '| key | type | default | meaning |',
    '| --- | --- | --- | --- |',
    ...fields.map(({ path, kind, type, default: fallback, description }) =>
      row([
        `\`${path}\``,
        kind === 'section' ? '' : type,
        fallback === undefined || kind === 'section' ? '' : `\`${JSON.stringify(fallback)}\``,
        description,
      ]),
    ),
    '',
  ]
}

function presetRows(name: string, preset: object): string[] {
  const values = Object.entries(preset).flatMap(([section, value]) =>
    typeof value === 'object'
      ? Object.entries(value).map(([key, inner]) => [`${section}.${key}`, inner] as const)
      : [[section, value] as const],
  )
  return values.map(([key, value]) => row([name, `\`${key}\``, `\`${JSON.stringify(value)}\``]))
}

function row(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replaceAll('<', '&lt;')).join(' | ')} |`
}

function capital(text: string): string {
  return text[0]!.toUpperCase() + text.slice(1)
}
