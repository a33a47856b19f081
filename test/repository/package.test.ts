import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
const manifest = JSON.parse(readFileSync(`${root}package.json`, 'utf8'))

function node(...args: string[]): string {
  return execFileSync(process.execPath, args, { cwd: root, encoding: 'utf8' }).trim()
}

describe('the package', () => {
  test('an ES module imports it by its name', () => {
    const program = "import { version } from 'foretoken'; console.log(version)"
    expect(node('--input-type=module', '-e', program)).toBe(manifest.version)
  })

  test('a CommonJS module requires it by its name', () => {
    expect(node('--input-type=commonjs', '-e', "console.log(require('foretoken').version)")).toBe(manifest.version)
  })

  test('importing it loads no native code: that waits for the first use', () => {
    const program = "await import('foretoken'); console.log(process.report.getReport().sharedObjects.join(' '))"
    expect(node('--input-type=module', '-e', program)).not.toContain('foretoken.node')
  })

  test('no install script runs on the machine of a user', () => {
    expect(manifest.gypfile).toBe(false)
    for (const name of ['preinstall', 'install', 'postinstall', 'prepare'])
      expect(manifest.scripts).not.toHaveProperty(name)
  })

  test('the changelog has an entry for this version', () => {
    expect(readFileSync(`${root}CHANGELOG.md`, 'utf8')).toMatch(new RegExp(`^## \\[${manifest.version}\\]`, 'm'))
  })

  test('the lockfile holds checksums and no download addresses', () => {
    const lock = JSON.parse(readFileSync(`${root}package-lock.json`, 'utf8'))
    const packages: [string, { resolved?: string; integrity?: string }][] = Object.entries(lock.packages)
    for (const [path, entry] of packages) {
      expect(entry.resolved, path).toBeUndefined()
      if (path !== '') expect(entry.integrity, path).toMatch(/^sha512-/)
    }
  })
})
