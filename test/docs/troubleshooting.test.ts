import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { readPage, root } from './pages.js'

/** The codes as the two halves of the program list them. */
function stableCodes(): string[] {
  const typescript = readFileSync(join(root, 'lib', 'engine', 'errors.ts'), 'utf8')
  const native = readFileSync(join(root, 'native', 'core', 'error.cpp'), 'utf8')
  const union = /export type ForetokenErrorCode =([^\n]*\n(?: {2}\| '[A-Z_]+'\n)+)/.exec(typescript)?.[1] ?? ''
  const codes = [...union.matchAll(/'([A-Z_]+)'/g), ...native.matchAll(/return "([A-Z_]+)"/g)]
  return [...new Set(codes.map(([, code]) => code!))].sort()
}

test('every stable error code has its section in troubleshooting.md, and every section is of a code that exists', () => {
  const codes = stableCodes()
  expect(codes).toContain('OUT_OF_MEMORY')
  expect(codes).toContain('LOCKED')
  const sections = readPage(join('docs', 'troubleshooting.md')).headings.filter(({ text }) => /^[A-Z_]+$/.test(text))
  expect(sections.map(({ text }) => text).sort()).toEqual(codes)
})
