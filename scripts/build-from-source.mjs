// What `foretoken build` starts in the folder of the package: compiles the addon into build/Release, where it is looked
// for first, and with --cuda the CUDA library too. Published with the few scripts that it imports; installs nothing.

import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { compile, configure } from './build-native.mjs'
import { findNvcc } from './cuda-toolchain.mjs'
import { quit, root, say, show } from './run.mjs'
import { installCommand, missingTools } from './toolchain.mjs'

const { cuda } = parseArgs({ options: { cuda: { type: 'boolean' } } }).values
const nvcc = cuda ? findNvcc() : undefined
if (cuda && nvcc === undefined)
  quit('--cuda needs nvcc: install the CUDA toolkit, https://developer.nvidia.com/cuda-downloads, and set CUDA_HOME')
const missing = missingTools()
if (missing.length > 0) {
  const names = missing.map((tool) => tool.name).join(', ')
  quit(`compiling the native core needs ${names}. Install with:\n\n    ${installCommand(missing)}\n`)
}
try {
  accessSync(root, constants.W_OK)
} catch {
  quit(`${root} may not be written to; run the command as the user who installed the package`)
}

// The tree of a build is many times as large as its result.
const tree = mkdtempSync(join(tmpdir(), 'foretoken-build-'))
process.once('exit', () => rmSync(tree, { recursive: true, force: true }))
say(`compiling the native core for this machine, from the sources in ${root}`)
configure(tree, nvcc ? { FORETOKEN_CUDA: 'ON', FORETOKEN_NVCC: nvcc } : {})
compile('foretoken', tree, show)
if (nvcc) compile('foretoken_cuda', tree, show)
say(`built ${join(root, 'build', 'Release', nvcc ? '{foretoken.node,libforetoken_cuda.so}' : 'foretoken.node')}`)
