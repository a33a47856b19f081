import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const library = fileURLToPath(new URL('../../build/Release/libforetoken_cuda.so', import.meta.url))

function readelf(...options: string[]): string {
  return execFileSync('readelf', [...options, '--wide', library], { encoding: 'utf8' })
}

describe.skipIf(!existsSync(library))('libforetoken_cuda.so (npm run build:cuda)', () => {
  test('needs nothing of NVIDIA to be loaded, nor a C++ library', () => {
    const needed = [...readelf('--dynamic').matchAll(/\(NEEDED\).*\[(.+)\]/g)].map(([, name]) => name!)
    expect(needed).toContain('libc.so.6')
    expect(needed.filter((name) => !/^(lib(c|m|dl|rt|pthread|gcc_s)|ld-linux-.*)\.so\.\d+$/.test(name))).toEqual([])
  })

  test('exports its entry points and nothing else', () => {
    const rows = readelf('--dyn-syms').matchAll(/\b(?:GLOBAL|WEAK|UNIQUE)\s+(?:DEFAULT|PROTECTED)\s+\d+\s+(\S+)/g)
    const names = [...rows].map(([, name]) => name!.replace(/@.*/, ''))
    expect(names.sort()).toEqual(['foretoken_cuda_abi_version', 'foretoken_cuda_create', 'foretoken_cuda_probe'])
  })
})
