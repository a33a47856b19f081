import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { ForetokenError } from './errors.js'
import type { NativeEngine } from './native-engine.js'

/** What the addon (native/node/) exports. */
export interface NativeBinding extends NativeEngine {
  readonly version: string
  readonly napiVersion: number
}

/** One place where the addon may lie; `load` throws if it does not lie there or does not start. */
export interface BinaryPlace {
  readonly place: string
  readonly load: () => unknown
}

// lib/engine/ and dist/engine/ are equally deep, so the same relative paths hold for both.
const root = fileURLToPath(new URL('../../', import.meta.url))
const require = createRequire(import.meta.url)

let binding: NativeBinding | undefined

/**
 * The native addon, loaded at the first call.
 *
 * @throws ForetokenError `BINARY_NOT_FOUND`, with every place tried and why it failed.
 */
export function nativeBinding(): NativeBinding {
  binding ??= loadFirst(places()) as NativeBinding
  return binding
}

/**
 * node-gyp-build's order: what FORETOKEN_PREBUILD names, a build from source, a prebuilt binary, other file names.
 * The usual ones are literal requires, which bundlers can follow.
 */
function places(): BinaryPlace[] {
  const nodeGypBuild = require('node-gyp-build') as (folder: string) => unknown
  const override = process.env.FORETOKEN_PREBUILD
  if (override !== undefined && override !== '')
    return [{ place: `${override} (from FORETOKEN_PREBUILD)`, load: () => nodeGypBuild(root) }]

  const built = {
    place: `${root}build/Release/foretoken.node`,
    load: () => require('../../build/Release/foretoken.node'),
  }
  const other = { place: `${root}build and ${root}prebuilds, by other names`, load: () => nodeGypBuild(root) }
  return [built, ...prebuilt(), other]
}

function prebuilt(): BinaryPlace[] {
  const platform = `${process.platform}-${process.arch}`
  const place = `${root}prebuilds/${platform}/foretoken.node`
  switch (platform) {
    case 'linux-x64':
      return [{ place, load: () => require('../../prebuilds/linux-x64/foretoken.node') }]
    default:
      return []
  }
}

/** What the first place gives that has the addon. */
export function loadFirst(places: readonly BinaryPlace[]): unknown {
  const failures: string[] = []
  const causes: unknown[] = []
  for (const { place, load } of places) {
    try {
      return load()
    } catch (error) {
      causes.push(error)
      failures.push(`  ${place}\n    ${reason(error)}`)
    }
  }
  throw new ForetokenError(
    'BINARY_NOT_FOUND',
    [
      `foretoken's native addon could not be loaded on ${process.platform}-${process.arch}, Node ${process.versions.node}. Tried:`,
      ...failures,
      'In a checkout of the repository, build it with: npm run setup',
      'Elsewhere, reinstall the package for this system, or set FORETOKEN_PREBUILD to a folder that has the addon in build/Release.',
    ].join('\n'),
    { cause: new AggregateError(causes) },
  )
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if ('code' in error && error.code === 'MODULE_NOT_FOUND') return 'there is no such file'
  return error.message.split('\n', 1)[0] ?? ''
}
