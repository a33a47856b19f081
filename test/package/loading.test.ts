import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { root } from './packed.js'

// A package folder with the loader in it, and the addon or what is not one in the places where the loader looks.

const platform = `${process.platform}-${process.arch}`
const addon = join(root, 'build', 'Release', 'foretoken.node')
let folder = ''

beforeAll(() => {
  execFileSync(process.execPath, [join(root, 'scripts', 'build-ts.mjs')])
  folder = mkdtempSync(join(tmpdir(), 'foretoken-loading-'))
  cpSync(join(root, 'dist', 'engine'), join(folder, 'dist', 'engine'), { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "name": "foretoken", "type": "module" }')
  mkdirSync(join(folder, 'node_modules'))
  symlinkSync(join(root, 'node_modules', 'node-gyp-build'), join(folder, 'node_modules', 'node-gyp-build'))
})
afterAll(() => rmSync(folder, { recursive: true }))

interface Loaded {
  file?: string
  error?: { code: string; message: string }
}

/** Loads the addon in a new process, with these files in the package: a copy of the addon, or a text. */
function load(files: Record<string, 'addon' | 'text'>, env: Record<string, string> = {}): Loaded {
  for (const place of ['build', 'prebuilds', 'elsewhere', 'node_modules/@foretoken'])
    rmSync(join(folder, place), { recursive: true, force: true })
  for (const [path, content] of Object.entries(files)) {
    const file = join(folder, path)
    mkdirSync(dirname(file), { recursive: true })
    if (content === 'addon') cpSync(addon, file)
    else writeFileSync(file, 'this is no addon')
  }
  const program = `import { nativeBinding } from './dist/engine/native-binding.js'
    try { console.log(JSON.stringify({ file: nativeBinding().file })) }
    catch ({ code, message }) { console.log(JSON.stringify({ error: { code, message } })) }`
  const args = ['--input-type=module', '-e', program]
  return JSON.parse(
    execFileSync(process.execPath, args, { cwd: folder, encoding: 'utf8', env: { ...process.env, ...env } }),
  )
}

const built = 'build/Release/foretoken.node'
const prebuilt = `prebuilds/${platform}/foretoken.node`
const renamed = `prebuilds/${platform}/other.glibc.node`
const packaged = `node_modules/@foretoken/${platform}/foretoken.node`

describe('the addon is taken from', () => {
  const everywhere = { [built]: 'addon', [prebuilt]: 'addon', [renamed]: 'addon', [packaged]: 'addon' } as const

  test('a build from source before anything else', () => {
    expect(load(everywhere).file).toMatch(new RegExp(`${built}$`))
  })

  test('prebuilds/ where there is no build', () => {
    const { [built]: _, ...others } = everywhere
    expect(load(others).file).toMatch(new RegExp(`${prebuilt}$`))
  })

  test('a file of another name that node-gyp-build knows', () => {
    expect(load({ [renamed]: 'addon', [packaged]: 'addon' }).file).toMatch(new RegExp(`${renamed}$`))
  })

  test('the package for the platform where there is nothing else', () => {
    expect(load({ [packaged]: 'addon' }).file).toMatch(new RegExp(`${packaged}$`))
  })

  test('the next place where one is broken', () => {
    expect(load({ [built]: 'text', [prebuilt]: 'text', [packaged]: 'addon' }).file).toMatch(new RegExp(`${packaged}$`))
  })

  test('the folder of FORETOKEN_PREBUILD and from nowhere else', () => {
    const elsewhere = { FORETOKEN_PREBUILD: join(folder, 'elsewhere') }
    expect(load({ ...everywhere, [`elsewhere/${built}`]: 'addon' }, elsewhere).file).toContain('/elsewhere/')
    expect(load(everywhere, elsewhere).error).toMatchObject({ code: 'BINARY_NOT_FOUND' })
  })
})

describe('where there is no addon', () => {
  test('one error names every place, why it failed and what to do', () => {
    const { error } = load({ [prebuilt]: 'text' })
    expect(error!.code).toBe('BINARY_NOT_FOUND')
    const lines = error!.message.split('\n')
    expect(lines[0]).toContain(`on ${platform}, Node ${process.versions.node}`)
    expect(lines).toContain('    there is no such file')
    expect(lines).toContain('    it is not installed')
    expect(error!.message).toMatch(
      new RegExp(`${prebuilt}\\n {4}.*(invalid ELF header|file too short|not a mach-o)`, 'i'),
    )
    for (const place of [built, prebuilt, `@foretoken/${platform}`]) expect(error!.message).toContain(place)
    expect(error!.message).toContain('npx foretoken build')
  })
})
