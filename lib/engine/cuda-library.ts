import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))
const require = createRequire(import.meta.url)
const name = 'libforetoken_cuda.so'

/**
 * Where foretoken's CUDA library may lie, in the order of trying: what FORETOKEN_CUDA_LIBRARY names and nothing else, or
 * a build from source, a prebuilt one, the package for this platform.
 */
export function cudaLibraryPlaces(): string[] {
  const override = process.env.FORETOKEN_CUDA_LIBRARY
  if (override !== undefined && override !== '') return [override]
  const platform = `${process.platform}-${process.arch}`
  const packaged = packageFile(platform)
  return [
    join(root, 'build', 'Release', name),
    join(root, 'prebuilds', platform, name),
    ...(packaged === undefined ? [] : [packaged]),
  ]
}

/** The first place that has it, or undefined. */
export function findCudaLibrary(): string | undefined {
  return cudaLibraryPlaces().find((place) => existsSync(place))
}

/** The file in the platform's package, where that is installed. */
function packageFile(platform: string): string | undefined {
  if (platform !== 'linux-x64') return undefined
  try {
    return join(dirname(require.resolve('@foretoken/linux-x64-cuda/package.json')), name)
  } catch {
    return undefined
  }
}
