import { type SpawnSyncReturns, spawnSync } from 'node:child_process'
import {
  closeSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
let folder = ''

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'foretoken-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})

function node(args: string[], options: { cwd: string; path?: string }): SpawnSyncReturns<string> {
  const env = { ...process.env, PATH: options.path ?? process.env.PATH, CXX: '', npm_execpath: '' }
  return spawnSync(process.execPath, args, { cwd: options.cwd, encoding: 'utf8', env })
}

describe('scripts/setup.mjs', () => {
  test('names the missing tools and the command that installs them, where it may not install them itself', () => {
    for (const name of ['scripts', 'package.json', 'package-lock.json'])
      cpSync(join(root, name), join(folder, name), { recursive: true })
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
    mkdirSync(join(folder, 'empty'))
    const { status, stderr } = node(['scripts/setup.mjs'], { cwd: folder, path: join(folder, 'empty') })
    expect(status).toBe(1)
    expect(stderr).toMatch(/needs a C\+\+20 compiler, CMake 3\.20 or newer, Ninja or make\. Install with:\n\n {4}\S/)
  })
})

describe('scripts/toolchain.mjs', () => {
  test('installs just the missing tools with apt-get, after an update, and goes on', () => {
    const program = (name: string, script: string) => {
      writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
    }
    cpSync(join(root, 'scripts'), join(folder, 'scripts'), { recursive: true })
    program('cmake', 'echo "cmake version 3.20.0"')
    program('sudo', 'shift; [ "$1" = true ] || { shift; exec "$@"; }')
    // The pretended installation puts programs where PATH finds them.
    program(
      'apt-get',
      `[ "$1" != --version ] && echo "$@" >> ${folder}/log
       if [ "$1" = install ]; then for name in g++ ninja; do
         echo '#!/bin/sh' > ${folder}/$name; /bin/chmod +x ${folder}/$name; done; fi; exit 0`,
    )
    const ensure = "(await import('./scripts/toolchain.mjs')).ensureToolchain(); console.log('ready')"
    const { stdout, stderr } = node(['--input-type=module', '-e', ensure], { cwd: folder, path: folder })
    expect(stderr).toBe('foretoken: installing g++, ninja-build with apt-get\n')
    expect(stdout).toBe('ready\n')
    expect(readFileSync(join(folder, 'log'), 'utf8')).toBe(
      'update\ninstall -y --no-install-recommends g++ ninja-build\n',
    )
  })
})

describe('scripts/build-ts.mjs', () => {
  const build = () => node(['scripts/build-ts.mjs'], { cwd: folder })
  const write = (name: string, text: string) => writeFileSync(join(folder, 'lib', name), text)
  const built = (name: string) => join(folder, 'dist', name)

  beforeEach(() => {
    for (const name of ['scripts', 'package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json'])
      cpSync(join(root, name), join(folder, name), { recursive: true })
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
    mkdirSync(join(folder, 'lib'))
    write('index.ts', "export { a } from './a.js'\n")
    write('a.ts', 'export const a = 1\n')
  })

  test('replaces what has changed, whole, so that who is reading it reads on; leaves the rest; removes what is gone', () => {
    write('gone.ts', 'export const gone = 1\n')
    expect(build()).toMatchObject({ status: 0, stderr: '' })
    const before = readFileSync(built('a.js'), 'utf8')
    const [index, reader] = [statSync(built('index.js')), openSync(built('a.js'), 'r')]
    write('a.ts', 'export const a = 22\n')
    rmSync(join(folder, 'lib', 'gone.ts'))
    expect(build()).toMatchObject({ status: 0, stderr: '' })
    expect(readFileSync(reader, 'utf8')).toBe(before)
    closeSync(reader)
    expect(readFileSync(built('a.js'), 'utf8')).toBe('export const a = 22;\n')
    expect(statSync(built('index.js'))).toMatchObject({ ino: index.ino, mtimeMs: index.mtimeMs })
    expect(readdirSync(join(folder, 'dist')).sort()).toEqual(['a.d.ts', 'a.js', 'index.d.ts', 'index.js'])
    expect(readdirSync(join(folder, 'build'))).toEqual(['dist.stamp'])
  })

  test('leaves dist/ as it is where the sources have a mistake, and says which', () => {
    expect(build().status).toBe(0)
    write('a.ts', "export const a: number = 'two'\n")
    const { status, stderr } = build()
    expect(status).toBe(2)
    expect(stderr).toContain('lib/a.ts(1,14): error TS2322')
    expect(readFileSync(built('a.js'), 'utf8')).toBe('export const a = 1;\n')
    expect(readdirSync(join(folder, 'build'))).toEqual([])
    expect(build().status).toBe(2)
  })
})

describe('scripts/typescript.mjs', () => {
  test('runs TypeScript with imports of other sources and with resource management', () => {
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
    writeFileSync(join(folder, 'greeting.ts'), "export const greeting: string = 'hello'\n")
    writeFileSync(
      join(folder, 'main.ts'),
      [
        "import { greeting } from './greeting.js'",
        '{',
        "  await using resource = { async [Symbol.asyncDispose]() { console.log('disposed') } }",
        '  console.log(greeting satisfies string, typeof resource)',
        '}',
      ].join('\n'),
    )
    const { stdout, stderr } = node(['--import', join(root, 'scripts/typescript.mjs'), 'main.ts'], { cwd: folder })
    expect(stderr).toBe('')
    expect(stdout).toBe('hello object\ndisposed\n')
  })
})

describe('scripts/bench.mjs', () => {
  test('refuses a benchmark that does not exist', () => {
    const { status, stderr } = node(['scripts/bench.mjs', 'no-such-benchmark'], { cwd: root })
    expect(status).toBe(1)
    expect(stderr).toContain('no benchmark no-such-benchmark')
  })
})
