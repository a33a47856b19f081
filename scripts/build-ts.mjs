// `npm run build:ts`: lib/ to dist/ by plain tsc, when a source is newer than the last build.

import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isProgram, root, run } from './run.mjs'

const stamp = join(root, 'build', 'dist.stamp')

function filesBelow(folder) {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}

function fingerprint() {
  const hash = createHash('sha256')
  const inputs = [
    ...filesBelow('lib'),
    ...['tsconfig.json', 'tsconfig.build.json', 'package-lock.json'].map((name) => join(root, name)),
  ]
  for (const file of inputs) {
    const { mtimeMs, size } = statSync(file)
    hash.update(`${file} ${mtimeMs} ${size}\n`)
  }
  return hash.digest('hex')
}

function isCurrent(expected) {
  try {
    return readFileSync(stamp, 'utf8') === expected && statSync(join(root, 'dist', 'index.js')).isFile()
  } catch {
    return false
  }
}

/** Output whose source is gone, which tsc leaves behind. */
function removeOrphans() {
  const sources = new Set(filesBelow('lib').map((file) => file.slice(join(root, 'lib').length).replace(/\.ts$/, '')))
  for (const file of filesBelow('dist')) {
    const source = file.slice(join(root, 'dist').length).replace(/(\.d\.ts|\.js)$/, '')
    if (!sources.has(source)) rmSync(file)
  }
}

/** Brings dist/ up to date. The stamp is written last, so that an interrupted build is not taken for a complete one. */
export function buildTypeScript() {
  const wanted = fingerprint()
  if (isCurrent(wanted)) return
  rmSync(stamp, { force: true })
  run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.build.json'])
  removeOrphans()
  mkdirSync(join(root, 'build'), { recursive: true })
  writeFileSync(stamp, wanted)
}

if (isProgram(import.meta)) buildTypeScript()
