import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** A library of NVIDIA's that foretoken opens where it is found. */
export interface FoundLibrary {
  /** What it is for. */
  purpose: 'driver' | 'matrix products'
  /** The file, such as `libcublasLt.so.13`. */
  name: string
  /** Null where it was found nowhere. */
  path: string | null
}

const wanted = [
  { purpose: 'driver', pattern: /^libcuda\.so\.1$/, name: 'libcuda.so.1' },
  { purpose: 'matrix products', pattern: /^libcublasLt\.so\.1[23]$/, name: 'libcublasLt.so' },
] as const

/** Where each is: every version in every folder that has one, in the order of `folders`. */
export async function findCudaLibraries(folders?: readonly string[]): Promise<FoundLibrary[]> {
  const searched = folders ?? (await libraryFolders())
  const contents = await Promise.all(
    searched.map(async (folder) => ({ folder, names: await readdir(folder).catch(() => [] as string[]) })),
  )
  return wanted.flatMap(({ purpose, pattern, name }): FoundLibrary[] => {
    const found = contents.flatMap(({ folder, names }) =>
      names.filter((each) => pattern.test(each)).map((each) => ({ purpose, name: each, path: join(folder, each) })),
    )
    return found.length > 0 ? found : [{ purpose, name, path: null }]
  })
}

/**
 * Folders that may hold them, as native/backend/cuda/cublaslt_search.cu looks: what FORETOKEN_CUDA_LIBRARIES, CUDA_HOME
 * and CUDA_PATH say, what the linker searches, the CUDA toolkits, and NVIDIA's Python packages (of the environment that is
 * active, the user's and the system's).
 */
export async function libraryFolders(environment: NodeJS.ProcessEnv = process.env): Promise<string[]> {
  const { FORETOKEN_CUDA_LIBRARIES, LD_LIBRARY_PATH, CUDA_HOME, CUDA_PATH, VIRTUAL_ENV, CONDA_PREFIX } = environment
  const listed = (paths = '') => paths.split(':').filter((folder) => folder !== '')
  const named = [CUDA_HOME, CUDA_PATH].filter((path) => path !== undefined && path !== '')
  const toolkits = await entries('/usr/local', /^cuda(-[\d.]+)?$/)
  const pythons = [VIRTUAL_ENV, CONDA_PREFIX, join(homedir(), '.local'), '/usr/local', '/usr'].filter(
    (path) => path !== undefined && path !== '',
  )
  const packages = await Promise.all(pythons.map((path) => pythonFolders(path!)))
  const folders = [
    ...listed(FORETOKEN_CUDA_LIBRARIES),
    ...named.map((toolkit) => join(toolkit!, 'lib64')),
    ...listed(LD_LIBRARY_PATH),
    ...(await linkerFolders()),
    ...['/usr/lib/x86_64-linux-gnu', '/usr/lib64', '/usr/lib/wsl/lib'],
    ...toolkits.map((toolkit) => join(toolkit, 'lib64')),
    ...packages.flat(),
  ]
  return [...new Set(folders)]
}

async function pythonFolders(prefix: string): Promise<string[]> {
  const versions = await entries(join(prefix, 'lib'), /^python3/)
  const vendors = await Promise.all(
    versions.flatMap((version) =>
      ['site-packages', 'dist-packages'].map((site) => entries(join(version, site, 'nvidia'), /^[a-z]/)),
    ),
  )
  return vendors.flat().map((vendor) => join(vendor, 'lib'))
}

/** Folders of the linker's cache that have one of the libraries. */
async function linkerFolders(): Promise<string[]> {
  for (const program of ['ldconfig', '/sbin/ldconfig']) {
    const result = await promisify(execFile)(program, ['-p'], { maxBuffer: 1 << 24 }).catch(() => undefined)
    if (result === undefined) continue
    const lines = result.stdout.split('\n').filter((line) => /libcuda\.so|libcublasLt/.test(line))
    return lines.flatMap((line) => line.match(/=> (.*)\/[^/]+$/)?.[1] ?? [])
  }
  return []
}

async function entries(folder: string, pattern: RegExp): Promise<string[]> {
  const names = await readdir(folder).catch(() => [] as string[])
  return names.filter((name) => pattern.test(name)).map((name) => join(folder, name))
}
