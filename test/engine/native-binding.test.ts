import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ForetokenError } from '../../lib/engine/errors.js'
import { loadFirst, nativeBinding } from '../../lib/engine/native-binding.js'
import { version } from '../../lib/index.js'

function text(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
}

describe('loading the native addon', () => {
  test('the addon is built from this version of the package', () => {
    expect(nativeBinding().version).toBe(version)
  })

  test('the first place that has an addon wins, and later ones are left alone', () => {
    const tried: string[] = []
    const place = (name: string, load: () => unknown) => ({
      place: name,
      load: () => {
        tried.push(name)
        return load()
      },
    })
    const refuse = () => {
      throw new Error('wrong ELF class')
    }
    const loaded = loadFirst([place('first', refuse), place('second', () => 'addon'), place('third', () => 'other')])
    expect(loaded).toBe('addon')
    expect(tried).toEqual(['first', 'second'])
  })

  test('when no place has it, one error names every place, the reason and the remedy', () => {
    const missing = Object.assign(new Error('Cannot find module\nRequire stack: …'), { code: 'MODULE_NOT_FOUND' })
    const attempt = () =>
      loadFirst([
        {
          place: '/package/build/Release/foretoken.node',
          load: () => {
            throw missing
          },
        },
        {
          place: '/package/prebuilds/linux-x64/foretoken.node',
          load: () => {
            throw new Error("version `GLIBC_2.38' not found\nmore")
          },
        },
      ])
    expect(attempt).toThrow(ForetokenError)
    expect(attempt).toThrow(expect.objectContaining({ code: 'BINARY_NOT_FOUND' }))
    expect(attempt).toThrow(/build\/Release\/foretoken\.node\n {4}there is no such file/)
    expect(attempt).toThrow(/prebuilds\/linux-x64\/foretoken\.node\n {4}version `GLIBC_2\.38' not found\n/)
    expect(attempt).toThrow(/npm run setup/)
  })

  test('the remedy names the C library where that is the reason', () => {
    const attempt = (glibc: string | undefined) => () => loadFirst([], () => glibc)
    expect(attempt('2.31')).toThrow('need glibc 2.34 or newer; this system has 2.31')
    expect(attempt(undefined)).toThrow(process.platform === 'linux' ? 'another C library (musl?)' : 'foretoken build')
    expect(attempt('2.36')).not.toThrow('need glibc')
    expect(attempt('2.36')).toThrow('npx foretoken build')
  })

  test('TypeScript knows every error code of the native core', () => {
    const native = [...text('native/core/error.cpp').matchAll(/return "([A-Z_]+)";/g)].map((match) => match[1])
    const typescript = [...text('lib/engine/errors.ts').matchAll(/\| '([A-Z_]+)'/g)].map((match) => match[1])
    expect(native.length).toBeGreaterThan(0)
    expect(typescript).toEqual(expect.arrayContaining(native))
  })
})
