// `npm run build:cuda`: compiles libforetoken_cuda.so into build/Release, where the engine looks for it first; only what has
// changed is compiled again. Fetches NVIDIA's compiler where the machine has none, except with --found-only.

import { join } from 'node:path'
import { compile, isConfigured } from './build-native.mjs'
import { fetchToolchain, findNvcc } from './cuda-toolchain.mjs'
import { isProgram, quit, root, run, say } from './run.mjs'
import { ensureToolchain } from './toolchain.mjs'

/** Apart from the addon's tree: set-up must not fail because a GPU's compiler went away. */
const tree = join(root, 'build', 'cuda')

function build(nvcc) {
  const variables = { FORETOKEN_CUDA: 'ON', FORETOKEN_NVCC: nvcc }
  if (!isConfigured(tree, variables)) {
    ensureToolchain()
    const definitions = Object.entries(variables).map(([name, value]) => `-D${name}=${value}`)
    run('cmake', ['-S', root, '-B', tree, ...definitions])
    say(`compiling the CUDA library with ${nvcc}, which takes minutes the first time`)
  }
  compile('foretoken_cuda', tree)
}

if (isProgram(import.meta)) {
  const found = findNvcc()
  if (found === undefined && process.argv.includes('--found-only')) quit('there is no nvcc', 0)
  build(found ?? (await fetchToolchain()))
}
