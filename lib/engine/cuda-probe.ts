import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { cudaLibraryPlaces, findCudaLibrary } from './cuda-library.js'
import { nativeBinding } from './native-binding.js'

/** What a CUDA library answered when it was tried in a process of its own. */
export interface CudaProbe {
  /** Whether it has a device that can be used. */
  ok: boolean
  /** A line per device, or one sentence that says why there is none. */
  reason: string
  /** How many devices can be used. */
  devices: number
  /** The library that was tried, or null where there is none. */
  library: string | null
}

const probes = new Map<string, Promise<CudaProbe>>()

/**
 * Whether CUDA can be used here, asked once per library: later calls give the first one's answer.
 *
 * A driver that does not fit its kernel module, or a library that does not fit the driver, may end the process that
 * opens it. That process is a child of this one.
 */
export function probeCuda(library: string | undefined = findCudaLibrary()): Promise<CudaProbe> {
  if (library === undefined) {
    const places = cudaLibraryPlaces().map((place) => `\n  ${place}`)
    const reason = `foretoken's CUDA library is not installed; there is none at${places.join('')}`
    return Promise.resolve({ ok: false, reason, devices: 0, library: null })
  }
  const known = probes.get(library)
  if (known !== undefined) return known
  const probe = runProbe(library)
  probes.set(library, probe)
  return probe
}

/** Tries a library in a new process; resolves whatever happens to that. */
export function runProbe(library: string, { seconds = 60 } = {}): Promise<CudaProbe> {
  // Nothing of foretoken's JavaScript is needed there, only the addon, which also holds when sources are run directly.
  const program = 'process.stdout.write(JSON.stringify(require(process.argv[1]).probeCuda(process.argv[2])))'
  const addon = fileURLToPath(nativeBinding().file)
  const child = spawn(process.execPath, ['-e', program, '--', addon, library], {
    // ELECTRON_RUN_AS_NODE makes Electron's executable a plain Node; NODE_OPTIONS may load what has no business here.
    env: { ...process.env, NODE_OPTIONS: '', ELECTRON_RUN_AS_NODE: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: seconds * 1000,
    killSignal: 'SIGKILL',
  })
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  return new Promise((resolve) => {
    const fail = (reason: string) => resolve({ ok: false, reason, devices: 0, library })
    child.once('error', ({ message }) => fail(`the process that tries CUDA libraries could not be started: ${message}`))
    child.once('close', (status, signal) => {
      const answer = parse(output.stdout)
      if (answer !== undefined) return resolve({ ...answer, library })
      if (child.killed) return fail(`${library} gave no answer within ${seconds} seconds; check the driver: nvidia-smi`)
      const end = `${signal ?? `status ${status}`}${lastLine(output.stderr)}`
      fail(`the process that tried ${library} ended with ${end}; check the driver: nvidia-smi`)
    })
  })
}

function parse(text: string): Omit<CudaProbe, 'library'> | undefined {
  try {
    // A driver may print lines of its own before.
    return JSON.parse(text.slice(text.lastIndexOf('{'))) as Omit<CudaProbe, 'library'>
  } catch {
    return undefined
  }
}

function lastLine(text: string): string {
  const line = text.trim().split('\n').at(-1)
  return line === undefined || line === '' ? '' : ` (${line.slice(0, 200)})`
}
