// `npm run prebuild`: the binaries that are published, in prebuilds/<platform>-<arch>/: the addon, stripped, and the CUDA
// library where the machine has a compiler for it or it has been built. The addon of build/Release stays as it is.
//
// `npm run prebuild -- --reuse` takes the addon of build/Release instead of compiling it anew: quick, for tests of the
// package.

import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import prebuildify from 'prebuildify'
import { checkBinaries } from './release-binaries.mjs'
import { isProgram, quit, root, run, say } from './run.mjs'

const platform = `${process.platform}-${process.arch}`
const cudaLibrary = 'libforetoken_cuda.so'

/** Compiles the addon into `folder`/prebuilds and gives the folder of this platform. */
async function compileAddon(folder) {
  const staging = join(root, 'build', 'prebuild')
  mkdirSync(staging, { recursive: true })
  const options = {
    ...{ name: 'foretoken', cwd: staging, out: folder, napi: true, strip: true },
    nodeGyp: join(root, 'scripts', 'gyp-shim.cjs'),
  }
  await new Promise((resolve, reject) => {
    prebuildify(options, (error) => (error ? reject(error) : resolve()))
  })
}

/** Copies a file without the symbols that only debuggers read. */
function copyStripped(from, to) {
  copyFileSync(from, to)
  run('strip', process.platform === 'darwin' ? ['-Sx', to] : ['--strip-all', to])
}

/** Makes prebuilds/ below `folder`. */
export async function prebuild({ folder = root, reuse = false } = {}) {
  const target = join(folder, 'prebuilds', platform)
  rmSync(target, { recursive: true, force: true })
  mkdirSync(target, { recursive: true })
  const built = join(root, 'build', 'Release')
  if (reuse) {
    copyStripped(join(built, 'foretoken.node'), join(target, 'foretoken.node'))
  } else {
    await compileAddon(folder)
    run(process.execPath, [join(root, 'scripts', 'build-cuda.mjs'), '--found-only'])
  }
  if (existsSync(join(built, cudaLibrary))) copyStripped(join(built, cudaLibrary), join(target, cudaLibrary))
  return target
}

if (isProgram(import.meta)) {
  const { values } = parseArgs({ options: { reuse: { type: 'boolean' } } })
  const target = await prebuild(values)
  const problems = checkBinaries(target)
  if (problems.length > 0) quit(problems.join('\n'))
  say(`${target} is ready`)
}
