// What a published binary may ask of the system it runs on.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { binaryFacts, byVersion } from './binary-facts.mjs'
import { root } from './run.mjs'

/** The floor that the loader and `foretoken doctor` speak of. */
export const oldestGlibc = readFileSync(join(root, 'lib', 'engine', 'libc.ts'), 'utf8').match(
  /oldestGlibc = '([\d.]+)'/,
)[1]

// Every Linux that runs Node has these; libdl, libpthread and librt are parts of libc since glibc 2.34.
const systemLibraries = [
  ...['libc.so.6', 'libm.so.6', 'libgcc_s.so.1', 'libdl.so.2', 'libpthread.so.0', 'librt.so.1'],
  ...['ld-linux-x86-64.so.2', 'ld-linux-aarch64.so.1'],
]

/** What is wrong with one Linux binary, as sentences. */
export function binaryProblems(file) {
  const facts = binaryFacts(file)
  if (facts === undefined) return [`${file} cannot be examined: objdump (binutils) is missing or refuses it`]
  const problems = []
  const foreign = facts.needed.filter((library) => !systemLibraries.includes(library))
  if (foreign.length > 0) problems.push(`${file} needs ${foreign.join(', ')}, which not every system has`)
  const { GLIBC: glibc } = facts.newest
  if (glibc !== undefined && byVersion(glibc, oldestGlibc) > 0)
    problems.push(`${file} needs glibc ${glibc}; the floor is ${oldestGlibc} (lib/engine/libc.ts)`)
  return problems
}

/** What is wrong with the binaries in a folder of prebuilds/, as sentences. */
export function checkBinaries(folder) {
  if (!existsSync(join(folder, 'foretoken.node'))) return [`${folder} has no foretoken.node: npm run prebuild`]
  const isLinux = /linux-[^/]*$/.test(folder)
  return readdirSync(folder).flatMap((name) => {
    if (!/^(foretoken\.node|libforetoken_cuda\.so)$/.test(name)) return [`${join(folder, name)} does not belong there`]
    return isLinux ? binaryProblems(join(folder, name)) : []
  })
}
