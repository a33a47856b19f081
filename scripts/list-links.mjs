// `node scripts/list-links.mjs`: the external links of README, CHANGELOG, docs/ and examples/, one a line with where it
// stands, for whoever has a network to follow them. Links inside of the repository are checked by npm test.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import MarkdownIt from 'markdown-it'
import { root } from './run.mjs'

const docs = readdirSync(join(root, 'docs'))
  .filter((name) => name.endsWith('.md'))
  .map((name) => join('docs', name))

for (const page of ['README.md', 'CHANGELOG.md', join('examples', 'README.md'), ...docs.sort()]) {
  for (const { children, map } of new MarkdownIt().parse(readFileSync(join(root, page), 'utf8'), {})) {
    for (const child of children ?? []) {
      const target = child.attrGet('href') ?? child.attrGet('src') ?? ''
      if (/^https?:/.test(target)) console.log(`${target} ${page}:${map[0] + 1}`)
    }
  }
}
