// What `npm test` and `npm run demo` do first: from a bare clone to a built package, and nothing when all is there.
// Imports nothing from node_modules, which may not exist yet.

import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { buildNative, isConfigured } from './build-native.mjs'
import { buildTypeScript } from './build-ts.mjs'
import { findNvcc } from './cuda-toolchain.mjs'
import { quit, root, run, say } from './run.mjs'
import { ensureToolchain } from './toolchain.mjs'

function readJson(...path) {
  return JSON.parse(readFileSync(join(root, ...path), 'utf8'))
}

function checkNode() {
  const wanted = readJson('package.json').engines.node
  const [major, minor] = process.versions.node.split('.').map(Number)
  const [wantedMajor, wantedMinor] = wanted.match(/\d+/g).map(Number)
  if (major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)) return
  quit(`Node ${wanted} is needed, this is ${process.versions.node}. Install a newer one from https://nodejs.org`)
}

/**
 * Whether node_modules is what package-lock.json asks for. npm writes its own lockfile into node_modules as the last
 * step of an installation; packages for other systems are missing there and are optional here.
 */
function packagesAreCurrent() {
  let installed
  try {
    installed = readJson('node_modules', '.package-lock.json').packages
  } catch {
    return false
  }
  return Object.entries(readJson('package-lock.json').packages).every(
    ([path, entry]) =>
      path === '' || (installed[path] ? installed[path].version === entry.version : entry.optional === true),
  )
}

function installPackages() {
  if (packagesAreCurrent()) return
  say('installing npm packages')
  // npm's own script, as npm itself names it: `npm` may be a .cmd file or not be on PATH.
  const npm = process.env.npm_execpath
  if (npm) run(process.execPath, [npm, 'ci'])
  else run('npm', ['ci'])
}

/** The CUDA library, where the machine has a compiler for it: a GPU is of use without it being asked for, never needed. */
function buildCuda() {
  if (process.platform !== 'linux' || findNvcc() === undefined) return
  const program = join(root, 'scripts', 'build-cuda.mjs')
  const { status } = spawnSync(process.execPath, [program, '--found-only'], { cwd: root, stdio: 'inherit' })
  if (status !== 0) say('the CUDA library was not built, so the engine computes on the CPU: npm run build:cuda')
}

checkNode()
installPackages()
if (!isConfigured()) ensureToolchain()
buildNative('foretoken')
buildCuda()
buildTypeScript()
