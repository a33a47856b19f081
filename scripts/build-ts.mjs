// `npm run build:ts`: lib/ to dist/ by plain tsc, when a source is newer than the last build.

import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, relative } from 'node:path'
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
    if (!sources.has(source)) rmSync(file, { force: true })
  }
}

/**
 * Replaces what has changed in dist/, each file at once: programs that run meanwhile, such as those of tests beside this
 * one, never read half a file.
 */
function replaceFiles(from) {
  for (const file of filesBelow(relative(root, from))) {
    const target = join(root, 'dist', relative(from, file))
    if (existsSync(target) && readFileSync(target).equals(readFileSync(file))) continue
    mkdirSync(dirname(target), { recursive: true })
    renameSync(file, target)
  }
}

/** Brings dist/ up to date. The stamp is written last, so that an interrupted build is not taken for a complete one. */
export function buildTypeScript() {
  const wanted = fingerprint()
  if (isCurrent(wanted)) return
  rmSync(stamp, { force: true })
  mkdirSync(join(root, 'build'), { recursive: true })
  const made = mkdtempSync(join(root, 'build', 'dist-'))
  // A failure ends the process.
  process.once('exit', () => rmSync(made, { recursive: true, force: true }))
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  run(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', made])
  replaceFiles(made)
  removeOrphans()
  writeFileSync(stamp, wanted)
}

if (isProgram(import.meta)) buildTypeScript()
