import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Compiles C++ into a shared library. */
export function compileLibrary(folder: string, name: string, source: string): string {
  const [from, to] = [join(folder, `${name}.cpp`), join(folder, `${name}.so`)]
  writeFileSync(from, source)
  const [compiler, ...flags] = (process.env.CXX || 'c++').split(' ')
  execFileSync(compiler!, [...flags, '-shared', '-fPIC', from, '-o', to])
  return to
}

/** The version of the border that this addon wants. */
const ownAbi = Number(
  /kAbiVersion = (\d+)/.exec(
    readFileSync(new URL('../../native/backend/cuda/interface.h', import.meta.url), 'utf8'),
  )![1],
)

/** A library with the entry points that a CUDA library is asked first; its probe does what the C++ says. */
export function cudaStandIn(folder: string, name: string, probe: string, { abi = ownAbi, others = '' } = {}): string {
  return compileLibrary(
    folder,
    name,
    `#include <cstddef>
     #include <cstdio>
     #include <cstdlib>
     #include <unistd.h>
     ${others}
     extern "C" int foretoken_cuda_abi_version() { return ${abi}; }
     extern "C" int foretoken_cuda_probe(char* reason, std::size_t size) { ${probe} }`,
  )
}
