import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { configSchema } from '../../lib/run/config-schema.js'
import { configurationPage, sourceKeys } from './configuration-page.js'
import { root } from './pages.js'

test('docs/configuration.md is what the schema says (vitest -u writes it anew)', async () => {
  await expect(configurationPage()).toMatchFileSnapshot('../../docs/configuration.md')
})

type Tree = { properties?: Record<string, Tree>; anyOf?: Tree[]; description?: string; propertyNames?: unknown }

/** Every key below an object of a JSON schema, found without our own walk over zod. */
function keysOf(tree: Tree, prefix = ''): string[] {
  return Object.entries(tree.properties ?? {}).flatMap(([name, child]) => [
    `${prefix}${name}`,
    ...keysOf(child, `${prefix}${name}.`),
  ])
}

test('it has every key of the schema, with its text', () => {
  const page = readFileSync(join(root, 'docs', 'configuration.md'), 'utf8')
  const tree = z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' }) as Tree
  const keys = keysOf(tree)
  expect(keys.length).toBeGreaterThan(100)
  for (const key of keys.filter((name) => !tree.properties![name]?.properties)) expect(page).toContain(`| \`${key}\` |`)
  expect(sourceKeys().map(({ name }) => name)).toEqual(
    expect.arrayContaining(['path', 'dataset', 'revision', 'files', 'format', 'field', 'template', 'unit']),
  )
  for (const { description } of sourceKeys()) expect(description).not.toBe('')
  // No row without its text.
  expect(page).not.toMatch(/\| \|$/m)
})
