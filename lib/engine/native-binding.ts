import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { ForetokenError } from './errors.js'
import { glibcVersion, isOlder, oldestGlibc } from './libc.js'
import type { NativeEngine } from './native-engine.js'
import { processorProblem } from './processor.js'

/** What the addon (native/node/) exports. */
export interface NativeBinding extends NativeEngine {
  readonly version: string
  readonly napiVersion: number
  /** Where it was loaded from, as a file: URL. */
  readonly file: string
  machine(): NativeMachine
  /** FLOP/s of a large matrix product on the CPU; 0 threads are as many as the machine allows. Takes a second. */
  productSpeed(dtype: 'float32' | 'bfloat16', threads: number): number
  /** Opens a CUDA library in this process; `probeCuda` of cuda-probe.ts does it in another. */
  probeCuda(path: string): { ok: boolean; reason: string; devices: number }
}

/** What the addon knows about the CPU. */
export interface NativeMachine {
  /** The one in use. */
  instructionSet: string
  instructionSets: string[]
  threads: number
  /** Bytes. */
  availableMemory: number
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
 * @throws ForetokenError `BINARY_NOT_FOUND`, with every place tried and why it failed; `DEVICE_UNAVAILABLE` on a
 * processor without AVX2.
 */
export function nativeBinding(): NativeBinding {
  if (binding === undefined) {
    const problem = processorProblem()
    if (problem !== undefined) throw new ForetokenError('DEVICE_UNAVAILABLE', problem)
    binding = loadFirst(places()) as NativeBinding
  }
  return binding
}

/**
 * node-gyp-build's order: what FORETOKEN_PREBUILD names, a build from source, a prebuilt binary, other file names; then
 * the package for this platform. The usual ones are literal requires, which bundlers can follow.
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
  const { prebuilt, packaged } = platformPlaces()
  return [built, ...prebuilt, other, ...packaged]
}

/** One case for each platform that binaries are made for. */
function platformPlaces(): { prebuilt: BinaryPlace[]; packaged: BinaryPlace[] } {
  const platform = `${process.platform}-${process.arch}`
  const found = (prebuilt: () => unknown, packaged: () => unknown) => ({
    prebuilt: [{ place: `${root}prebuilds/${platform}/foretoken.node`, load: prebuilt }],
    packaged: [{ place: `the package @foretoken/${platform}`, load: packaged }],
  })
  switch (platform) {
    case 'linux-x64':
      return found(
        () => require('../../prebuilds/linux-x64/foretoken.node'),
        () => require('@foretoken/linux-x64/foretoken.node'),
      )
    case 'linux-arm64':
      return found(
        () => require('../../prebuilds/linux-arm64/foretoken.node'),
        () => require('@foretoken/linux-arm64/foretoken.node'),
      )
    case 'darwin-arm64':
      return found(
        () => require('../../prebuilds/darwin-arm64/foretoken.node'),
        () => require('@foretoken/darwin-arm64/foretoken.node'),
      )
    default:
      return { prebuilt: [], packaged: [] }
  }
}

/** What the first place gives that has the addon. */
export function loadFirst(places: readonly BinaryPlace[], glibc = glibcVersion): unknown {
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
      'What to do:',
      ...remedies(glibc()).map((remedy) => `  - ${remedy}`),
    ].join('\n'),
    { cause: new AggregateError(causes) },
  )
}

function remedies(glibc: string | undefined): string[] {
  const isLinux = process.platform === 'linux'
  return [
    ...(isLinux && glibc === undefined
      ? [`Prebuilt binaries need glibc ${oldestGlibc} or newer; this system has another C library (musl?).`]
      : []),
    ...(glibc !== undefined && isOlder(glibc, oldestGlibc)
      ? [`Prebuilt binaries need glibc ${oldestGlibc} or newer; this system has ${glibc}. Use a newer one, or:`]
      : []),
    'Compile it here, with CMake and a C++20 compiler: npx foretoken build',
    'Or install the package again on this very system: node_modules copied from another does not fit.',
    'In a checkout of the repository: npm run setup',
    'Where the addon lies elsewhere: set FORETOKEN_PREBUILD to the folder that has it in build/Release.',
  ]
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if ('code' in error && error.code === 'MODULE_NOT_FOUND') {
    return /Cannot find module '@/.test(error.message) ? 'it is not installed' : 'there is no such file'
  }
  return error.message.split('\n', 1)[0] ?? ''
}
