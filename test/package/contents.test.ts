import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { glibcVersion, isOlder, oldestGlibc } from '../../lib/engine/libc.js'
import { parsePage } from '../docs/pages.js'
import { type Packed, pack, root } from './packed.js'

const isLinux = process.platform === 'linux'
const platform = `${process.platform}-${process.arch}`
let folder = ''
let packed: Packed

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'foretoken-contents-'))
  packed = pack(folder)
  execFileSync('tar', ['-xzf', packed.file, '-C', folder])
})
afterAll(() => rmSync(folder, { recursive: true }))

function json(...path: string[]) {
  return JSON.parse(readFileSync(join(...path), 'utf8'))
}

/** What an exported function of a script answers. */
function ask(script: string, call: string) {
  const program = `import(${JSON.stringify(join(root, 'scripts', script))}).then((m) => console.log(JSON.stringify(${call})))`
  return JSON.parse(execFileSync(process.execPath, ['-e', program], { encoding: 'utf8' }))
}

describe('the tarball', () => {
  test('has what belongs there and nothing else', () => {
    expect(packed.problems).toEqual([])
    const tops = new Set(
      packed.files.map((path) =>
        path
          .split('/')
          .slice(0, /^(dist|docs|examples)\//.test(path) ? 1 : 2)
          .join('/'),
      ),
    )
    const native = [...tops].filter((path) => path.startsWith('native/'))
    expect(native).not.toContain('native/test')
    expect([...tops].filter((path) => !path.startsWith('native/'))).toEqual([
      ...['CHANGELOG.md', 'CMakeLists.txt', 'LICENSE', 'README.md', 'THIRD_PARTY_NOTICES', 'dist', 'docs', 'examples'],
      ...['package.json', `prebuilds/${platform}`],
      ...['build-from-source', 'build-native', 'cuda-toolchain', 'run', 'toolchain'].map(
        (name) => `scripts/${name}.mjs`,
      ),
    ])
    expect(packed.files.filter((path) => path.startsWith('prebuilds/'))).toContain(
      `prebuilds/${platform}/foretoken.node`,
    )
    const sources = packed.files.filter((path) => /\.(map|ts)$/.test(path) && !path.endsWith('.d.ts'))
    expect(sources.filter((path) => !path.startsWith('examples/'))).toEqual([])
    expect(packed.files.filter((path) => path.startsWith('docs/') && !/^docs\/[\w-]+\.md$/.test(path))).toEqual([])
  })

  test('has whatever its pages link to', () => {
    const has = (path: string) => packed.files.some((file) => file === path || file.startsWith(join(path, '/')))
    const pages = packed.files.filter((path) => /^(README|CHANGELOG|docs\/.*|examples\/.*)\.md$/.test(path))
    expect(pages).toEqual(expect.arrayContaining(['README.md', join('docs', 'demo.md'), join('examples', 'README.md')]))
    const targets = pages.flatMap((path) =>
      parsePage(path, readFileSync(join(folder, 'package', path), 'utf8'))
        .links.map(({ target }) => target.split('#')[0]!)
        .filter((target) => target !== '' && !/^[a-z]+:/.test(target))
        .map((target) => ({ path, target, file: join(dirname(path), target) })),
    )
    expect(targets.length).toBeGreaterThan(20)
    expect(targets.filter(({ file }) => !has(file))).toEqual([])
  })

  test('is far below what npm accepts', () => {
    expect(packed.size).toBeLessThan(100e6)
  })

  test('is checked: a file too many, a file too few and too many bytes are each named', () => {
    const wrong = {
      size: 2 ** 30,
      files: [...packed.files.filter((path) => path !== 'LICENSE'), 'native/test/main.cpp'],
    }
    expect(ask('release-tarball.mjs', `m.tarballProblems(${JSON.stringify(wrong)})`)).toEqual([
      'the tarball has native/test/main.cpp, which does not belong there',
      'the tarball lacks LICENSE',
      expect.stringContaining(`the tarball is of ${2 ** 30} bytes`),
    ])
  })

  test('runs nothing when it is installed', () => {
    const manifest = json(folder, 'package', 'package.json')
    expect(manifest.gypfile).toBe(false)
    expect(packed.files).not.toContain('binding.gyp')
    for (const name of ['preinstall', 'install', 'postinstall', 'prepare'])
      expect(manifest.scripts).not.toHaveProperty(name)
  })
})

// Releases are built on Debian 12; a newer glibc gives its programs newer versions of symbols.
const isReleaseSystem = isLinux && !isOlder('2.36', glibcVersion() ?? '99')
const hasStaticLibrary =
  isLinux && execFileSync('c++', ['-print-file-name=libstdc++.a'], { encoding: 'utf8' }).startsWith('/')

describe.runIf(hasStaticLibrary)('the prebuilt binary', () => {
  const binary = () => join(folder, 'package', 'prebuilds', platform, 'foretoken.node')
  const loader = process.arch === 'x64' ? 'ld-linux-x86-64.so.2' : 'ld-linux-aarch64.so.1'
  const facts = () => ask('binary-facts.mjs', `m.binaryFacts(${JSON.stringify(binary())})`)

  test('needs no library but those that every Linux with Node has', () => {
    const { needed } = facts() as { needed: string[] }
    const allowed = [loader, 'libc.so.6', 'libgcc_s.so.1', 'libm.so.6', 'libdl.so.2', 'libpthread.so.0']
    expect(needed).toContain('libc.so.6')
    expect(needed.filter((name) => !allowed.includes(name))).toEqual([])
  })

  test('needs no libstdc++ of the system', () => {
    expect((facts() as { newest: object }).newest).not.toHaveProperty('GLIBCXX')
  })

  test.runIf(isReleaseSystem)('needs no newer glibc than is stated', () => {
    const { newest } = facts() as { newest: { GLIBC: string } }
    expect(isOlder(oldestGlibc, newest.GLIBC), `${newest.GLIBC} and ${oldestGlibc}`).toBe(false)
  })

  test('has no symbols for debuggers', () => {
    expect(execFileSync('objdump', ['-h', binary()], { encoding: 'utf8' })).not.toMatch(/\.symtab|\.debug_info/)
  })

  test('is refused where it needs more than that', () => {
    const source = join(folder, 'needy.cpp')
    mkdirSync(join(folder, 'linux-x64'))
    writeFileSync(source, '#include <iostream>\nvoid greet() { std::cout << "hello"; }\n')
    const [compiler, ...flags] = (process.env.CXX || 'c++').split(' ')
    const addon = join(folder, 'linux-x64', 'foretoken.node')
    execFileSync(compiler!, [...flags, '-shared', '-fPIC', source, '-o', addon])
    writeFileSync(join(folder, 'linux-x64', 'notes.txt'), '')
    expect(ask('release-binaries.mjs', `m.checkBinaries(${JSON.stringify(join(folder, 'linux-x64'))})`)).toEqual([
      expect.stringContaining('needs libstdc++.so.6, which not every system has'),
      expect.stringContaining('notes.txt does not belong there'),
    ])
  })
})

describe('the packages for platforms', () => {
  test('have a binary each, for its system and processor only, in the version of the main package', () => {
    const prebuilds = join(folder, 'prebuilds')
    for (const file of ['linux-x64/foretoken.node', 'linux-x64/libforetoken_cuda.so', 'darwin-arm64/foretoken.node']) {
      mkdirSync(join(prebuilds, file, '..'), { recursive: true })
      writeFileSync(join(prebuilds, file), file)
    }
    const packages = join(folder, 'packages')
    execFileSync(process.execPath, [join(root, 'scripts', 'platform-packages.mjs'), packages, prebuilds])
    const { version } = json(root, 'package.json')
    expect(json(packages, 'linux-x64', 'package.json')).toMatchObject({
      ...{ name: '@foretoken/linux-x64', version, os: ['linux'], cpu: ['x64'], libc: ['glibc'] },
    })
    expect(json(packages, 'linux-x64-cuda', 'package.json').name).toBe('@foretoken/linux-x64-cuda')
    expect(json(packages, 'darwin-arm64', 'package.json')).not.toHaveProperty('libc')
    const holds = (name: string) => {
      const text = execFileSync('npm', ['pack', '--dry-run', '--json'], {
        ...{ cwd: join(packages, name), encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
      })
      const [report] = Object.values(JSON.parse(text)) as { files: { path: string }[] }[]
      return report!.files.map(({ path }) => path).sort()
    }
    const common = ['LICENSE', 'README.md', 'THIRD_PARTY_NOTICES']
    expect(holds('linux-x64')).toEqual([...common, 'foretoken.node', 'package.json'])
    expect(holds('linux-x64-cuda')).toEqual([...common, 'libforetoken_cuda.so', 'package.json'])
  })
})

describe('THIRD_PARTY_NOTICES', () => {
  test('is what the installed packages say, and all their licences are permitted', () => {
    expect(ask('notices.mjs', 'm.noticesProblems()')).toEqual([])
  })

  test('names every dependency of the package', () => {
    const notices = readFileSync(join(root, 'THIRD_PARTY_NOTICES'), 'utf8')
    for (const name of Object.keys(json(root, 'package.json').dependencies)) expect(notices).toContain(`  ${name} `)
  })
})
