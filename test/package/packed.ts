import { execFileSync } from 'node:child_process'
import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../../', import.meta.url))

/** The tarball that a release would publish, but with the addon of build/Release as its prebuilt binary. */
export interface Packed {
  file: string
  size: number
  files: string[]
  problems: string[]
}

export function pack(folder: string): Packed {
  execFileSync(process.execPath, [join(root, 'scripts', 'build-ts.mjs')])
  const script = join(root, 'scripts', 'release-tarball.mjs')
  return JSON.parse(execFileSync(process.execPath, [script, folder], { encoding: 'utf8' })) as Packed
}

/** npm's own program (or npx's), which Node runs without a shell. */
export function npmProgram(name: 'npm' | 'npx'): string {
  const nodeFolder = dirname(realpathSync(process.execPath))
  const candidates = [
    ...(process.env.npm_execpath === undefined ? [] : [dirname(process.env.npm_execpath)]),
    join(nodeFolder, '..', 'lib', 'node_modules', 'npm', 'bin'),
    ...(process.env.PATH ?? '').split(':').flatMap((folder) => {
      const npm = join(folder, 'npm')
      return existsSync(npm) ? [dirname(realpathSync(npm))] : []
    }),
  ]
  const found = candidates.map((folder) => join(folder, `${name}-cli.js`)).find((file) => existsSync(file))
  if (found === undefined) throw new Error(`${name} was not found beside Node or on PATH`)
  return found
}
