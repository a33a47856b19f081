import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'

export function buildCommand(): Command {
  return new Command('build')
    .description('compile the native core from the sources in this package')
    .option('--cuda', 'compile the CUDA library too')
    .addHelpText(
      'after',
      `
Needed only where no prebuilt binary fits, or to try changed sources. It takes a minute or two, downloads nothing, and
needs a C++20 compiler such as g++ 12, CMake 3.20 or newer, and Ninja or make:
  Debian, Ubuntu   sudo apt-get install g++ cmake ninja-build
  Fedora, RHEL     sudo dnf install gcc-c++ cmake ninja-build
  macOS            xcode-select --install; brew install cmake ninja
  others           https://cmake.org/download and your system's compiler
CXX names another compiler. --cuda needs the CUDA toolkit (nvcc) as well: https://developer.nvidia.com/cuda-downloads

The result is build/Release/foretoken.node in the package's folder, which is preferred to a
prebuilt binary; delete it to go back.

Examples:
  foretoken build
  CXX=g++-13 foretoken build --cuda`,
    )
    .action(async ({ cuda }: { cuda?: boolean }) => {
      const script = fileURLToPath(new URL('../../scripts/build-from-source.mjs', import.meta.url))
      const child = spawn(process.execPath, [script, ...(cuda ? ['--cuda'] : [])], { stdio: 'inherit' })
      const [status] = (await once(child, 'exit')) as [number | null]
      // The script has said what was wrong.
      process.exitCode = status ?? 1
    })
}
