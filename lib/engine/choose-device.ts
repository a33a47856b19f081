import { probeCuda } from './cuda-probe.js'
import { ForetokenError } from './errors.js'

/** What the core is told to compute with. */
export interface ChosenDevice {
  device: string
  /** The CUDA library to open, for a CUDA device. */
  cudaLibrary?: string
  /** Why `auto` is not the GPU, where there is a CUDA library to ask. */
  note?: string
}

/**
 * The device that an option means here: `auto` is the GPU where a trial in a child process has shown that it can be
 * used, else the CPU. Names that are not about CUDA are the core's to judge.
 *
 * @throws ForetokenError `DEVICE_UNAVAILABLE` where CUDA is asked for and cannot be used, with the reason.
 */
export async function chooseDevice(device = 'auto'): Promise<ChosenDevice> {
  if (device !== 'auto' && !device.startsWith('cuda')) return { device }
  const { ok, reason, library } = await probeCuda()
  if (ok && library !== null) return { device: device === 'auto' ? 'cuda' : device, cudaLibrary: library }
  if (device === 'auto')
    return library === null ? { device: 'cpu' } : { device: 'cpu', note: `the GPU is not used: ${reason}` }
  throw new ForetokenError(
    'DEVICE_UNAVAILABLE',
    `device ${JSON.stringify(device)} cannot be used: ${reason}\n'foretoken doctor' says what it finds; device 'cpu' works everywhere`,
  )
}
