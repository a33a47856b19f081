// `npm run build:native`: compiles the addon into build/Release; only what has changed is compiled again.

import { existsSync, readFileSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { isProgram, root, run, say } from './run.mjs'

/** CMake's tree of the addon, the native tests and the benchmarks: they share one compiled core. */
export const buildTree = join(root, 'build', 'cmake')

function cachedVariables(tree) {
  try {
    const cache = readFileSync(join(tree, 'CMakeCache.txt'), 'utf8')
    return new Map([...cache.matchAll(/^([^#/\s][^:]*):[^=]*=(.*)$/gm)].map(([, name, value]) => [name, value]))
  } catch {
    return new Map()
  }
}

/** Whether the tree can be built as it is: written to its end, for this folder, with these variables. */
export function isConfigured(tree = buildTree, variables = {}) {
  // The generator's file is written last.
  if (!existsSync(join(tree, 'build.ninja')) && !existsSync(join(tree, 'Makefile'))) return false
  const cached = cachedVariables(tree)
  return (
    cached.get('CMAKE_HOME_DIRECTORY') === root &&
    Object.entries(variables).every(([name, value]) => cached.get(name) === value)
  )
}

/** Configures a tree through cmake-js, which knows where Node's headers are. */
export function configure(tree, variables) {
  // A tree that was copied or moved with its folder points to the old place, and CMake refuses it.
  if (cachedVariables(tree).get('CMAKE_HOME_DIRECTORY') !== root) rmSync(tree, { recursive: true, force: true })
  // An installed package has its dependencies beside it, a checkout below it.
  const cmakeJs = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js')
  const definitions = Object.entries(variables).map(([name, value]) => `--CD${name}=${value}`)
  run(process.execPath, [cmakeJs, 'configure', '--out', tree, '--config', 'Release', ...definitions])
}

/** Compiles one target with every CPU that this process may use; `start` is how programs are run. */
export function compile(target, tree = buildTree, start = run) {
  start('cmake', ['--build', tree, '--target', target, '--parallel', String(availableParallelism())])
}

/** Brings one target up to date; `variables` are CMake options that the target needs. */
export function buildNative(target, { tree = buildTree, variables = {} } = {}) {
  if (!isConfigured(tree)) say('compiling the native core')
  if (!isConfigured(tree, variables)) configure(tree, variables)
  compile(target, tree)
}

if (isProgram(import.meta)) buildNative('foretoken')
