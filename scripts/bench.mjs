// `npm run bench`: lists the benchmarks; `npm run bench -- name …` runs one. A benchmark is a file of bench/ (TypeScript
// or JavaScript) or of bench/native/ (C++), and prints a ratio to a peer or to a ceiling measured in the same run.

import { existsSync, readdirSync } from 'node:fs'
import { join, parse } from 'node:path'
import { buildNative, buildTree } from './build-native.mjs'
import { quit, root, show } from './run.mjs'

function benchmarks() {
  const found = new Map()
  const add = (folder, pattern, start) => {
    if (!existsSync(join(root, folder))) return
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true }))
      if (entry.isFile() && pattern.test(entry.name))
        found.set(parse(entry.name).name, start(parse(entry.name).name, entry.name))
  }
  add('bench', /\.(ts|mjs)$/, (_, file) => (args) => {
    show(process.execPath, ['--import', './scripts/typescript.mjs', join('bench', file), ...args])
  })
  add('bench/native', /\.cpp$/, (name) => (args) => {
    buildNative('benchmarks', { variables: { FORETOKEN_BENCH: 'ON' } })
    show(join(buildTree, 'bench', name), args)
  })
  return found
}

const found = benchmarks()
const [name, ...args] = process.argv.slice(2)
if (name === undefined) {
  console.log(
    `usage: npm run bench -- NAME [arguments]\n\n${[...found.keys()]
      .sort()
      .map((each) => `  ${each}`)
      .join('\n')}`,
  )
} else {
  const start =
    found.get(name) ?? quit(`no benchmark ${name}; there are: ${[...found.keys()].sort().join(', ') || 'none'}`)
  start(args)
}
