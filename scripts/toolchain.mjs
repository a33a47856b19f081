import { readFileSync } from 'node:fs'
import { output, quit, run, say } from './run.mjs'

const probe = `#include <barrier>
#include <bit>
#include <span>
int main() { return std::bit_cast<int>(1.0f) == 0 ? 1 : 0; }
`

function hasCompiler() {
  const candidates = process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++']
  return candidates.some((command) => {
    const [program, ...args] = command.split(' ')
    return output(program, [...args, '-std=c++20', '-fsyntax-only', '-x', 'c++', '-'], probe) !== undefined
  })
}

function hasCmake() {
  const [, major, minor] = output('cmake', ['--version'])?.match(/version (\d+)\.(\d+)/) ?? []
  return Number(major) > 3 || (Number(major) === 3 && Number(minor) >= 20)
}

function hasBuildProgram() {
  return output('ninja', ['--version']) !== undefined || output('make', ['--version']) !== undefined
}

const tools = [
  { name: 'a C++20 compiler', found: hasCompiler, apt: 'g++' },
  { name: 'CMake 3.20 or newer', found: hasCmake, apt: 'cmake' },
  { name: 'Ninja or make', found: hasBuildProgram, apt: 'ninja-build' },
]

/** The tools that the native core is built with and that are not on this machine. */
export function missingTools() {
  return tools.filter((tool) => !tool.found())
}

function osRelease() {
  try {
    const text = readFileSync('/etc/os-release', 'utf8')
    return [...text.matchAll(/^(?:ID|ID_LIKE)="?([^"\n]*)"?$/gm)].map((match) => match[1]).join(' ')
  } catch {
    return ''
  }
}

/** The command that installs the tools, for the system's own package manager. */
export function installCommand(missing, { platform = process.platform, release = osRelease() } = {}) {
  if (platform === 'darwin') return 'xcode-select --install; brew install cmake ninja'
  if (/debian|ubuntu/.test(release))
    return `sudo apt-get update && sudo apt-get install -y ${missing.map((tool) => tool.apt).join(' ')}`
  if (/fedora|rhel|centos/.test(release)) return 'sudo dnf install -y gcc-c++ cmake ninja-build'
  if (/arch/.test(release)) return 'sudo pacman -S --needed gcc cmake ninja'
  if (/alpine/.test(release)) return 'sudo apk add g++ cmake ninja linux-headers'
  return `install ${missing.map((tool) => tool.name).join(', ')} with your system's package manager`
}

/** How to call apt-get without a question, or undefined where that is not possible. */
function aptGet() {
  if (output('apt-get', ['--version']) === undefined) return undefined
  if (process.getuid() === 0) return ['apt-get']
  return output('sudo', ['-n', 'true']) === undefined
    ? undefined
    : ['sudo', '-n', 'DEBIAN_FRONTEND=noninteractive', 'apt-get']
}

/** Makes sure that the native core can be built: installs what is missing where that needs no question, else says how. */
export function ensureToolchain() {
  let missing = missingTools()
  const apt = missing.length > 0 ? aptGet() : undefined
  if (apt) {
    const [program, ...args] = apt
    const packages = missing.map((tool) => tool.apt)
    say(`installing ${packages.join(', ')} with apt-get`)
    const env = { DEBIAN_FRONTEND: 'noninteractive' }
    run(program, [...args, 'update'], { env })
    run(program, [...args, 'install', '-y', '--no-install-recommends', ...packages], { env })
    missing = missingTools()
  }
  if (missing.length === 0) return
  const names = missing.map((tool) => tool.name).join(', ')
  quit(`building the native core needs ${names}. Install with:\n\n    ${installCommand(missing)}\n`)
}
