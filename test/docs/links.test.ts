import { existsSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parsePage, readPage, readPages, root } from './pages.js'

const external = /^[a-z]+:/

/** What is wrong with the links of a page. */
function brokenLinks(page: ReturnType<typeof parsePage>): string[] {
  return page.links.flatMap(({ target, line }) => {
    if (external.test(target)) return []
    const [path = '', anchor] = decodeURI(target).split('#')
    const file = path === '' ? page.path : normalize(join(dirname(page.path), path))
    if (file.startsWith('..')) return [`${page.path}:${line}: ${target} leads out of the repository`]
    // docs/api is made by `npm run docs`.
    if (file.startsWith(join('docs', 'api'))) return []
    if (path !== '' && !existsSync(join(root, file))) return [`${page.path}:${line}: ${target} does not exist`]
    if (anchor === undefined) return []
    const anchors = file === page.path ? page.anchors : readPage(file).anchors
    return anchors.has(anchor) ? [] : [`${page.path}:${line}: ${target} has no such heading`]
  })
}

describe('links', () => {
  test('every relative link of README, CHANGELOG, docs and examples leads to a file and a heading that exist', () => {
    expect(readPages().flatMap(brokenLinks)).toEqual([])
  })

  test('a link to a missing file, to a missing heading and out of the repository are each found', () => {
    const page = parsePage(
      'docs/x.md',
      '# One `two`: 3\n[a](#one-two-3) [b](#other) [c](no.md) [d](../../x) [e](../README.md#license) [f](https://x.y)',
    )
    expect(brokenLinks(page)).toEqual([
      'docs/x.md:2: #other has no such heading',
      'docs/x.md:2: no.md does not exist',
      'docs/x.md:2: ../../x leads out of the repository',
    ])
  })

  test('every page of docs/ can be reached from docs/README.md', () => {
    const reached = new Set<string>()
    const visit = (path: string) => {
      if (reached.has(path)) return
      reached.add(path)
      for (const { target } of readPage(path).links) {
        const file = normalize(join(dirname(path), target.split('#')[0]!))
        if (!external.test(target) && file.startsWith('docs') && file.endsWith('.md') && existsSync(join(root, file)))
          visit(file)
      }
    }
    visit(join('docs', 'README.md'))
    const pages = readPages().map(({ path }) => path)
    expect(pages.filter((path) => path.startsWith('docs') && !reached.has(path))).toEqual([])
  })
})
