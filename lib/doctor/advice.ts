import type { DoctorReport } from './report.js'

const gibibyte = 2 ** 30

/** What the person at this machine may want to do about what was found; nothing where all is well. */
export function advice({ versions, binary, cpu, memory, gpu, selfTest }: Omit<DoctorReport, 'advice'>): string[] {
  const found: string[] = []
  if ('problem' in binary) return [binary.problem]
  if (!selfTest.ok) {
    found.push(
      selfTest.device === null
        ? 'Nothing could be computed on the device that was asked for; the lines with FAIL say why.'
        : 'The self-test failed: do not trust results here. If its lines do not say what to do, report it with this output.',
    )
  }
  if (binary.version !== versions.foretoken) {
    found.push(
      `The native core is of version ${binary.version}, the package of ${versions.foretoken}: install the package again, or run foretoken build again.`,
    )
  }
  const best = cpu.instructionSets.at(-1)
  if (cpu.instructionSet !== null && cpu.instructionSet !== best) {
    found.push(`FORETOKEN_ISA asks for the kernels of ${cpu.instructionSet}; ${best} is there and faster.`)
  }
  if (cpu.threads !== null && cpu.threads < cpu.processors) {
    found.push(
      `The engine takes ${cpu.threads} of ${cpu.processors} processors: CPU affinity or the cgroup grants no more.`,
    )
  }
  if (memory.available !== null && memory.available < 2 * gibibyte) {
    found.push(
      'Less than 2 GiB of memory is available. Training takes 16 bytes per parameter and more (10 with stateDtype bfloat16).',
    )
  }
  return [...found, ...gpuAdvice(gpu)]
}

function gpuAdvice({ devices, driver, libraries, cuda }: DoctorReport['gpu']): string[] {
  const hasGpu = devices.length > 0 || driver !== null
  if (!hasGpu) return ['There is no NVIDIA driver here; everything runs on the CPU.']
  const lacksProducts = libraries.some(({ purpose, path }) => purpose === 'matrix products' && path === null)
  return [
    ...(cuda === null ? ["There is a GPU, but foretoken's CUDA library is not in this package; the CPU is used."] : []),
    ...(cuda !== null && !cuda.ok ? [`The GPU cannot be used: ${cuda.reason}`] : []),
    ...(cuda !== null && lacksProducts
      ? [
          "libcublasLt was not found, so matrices are multiplied by foretoken's own kernels. For NVIDIA's, install the CUDA " +
            'toolkit or the Python package nvidia-cublas; FORETOKEN_CUDA_LIBRARIES names its folder where it is in no usual place.',
        ]
      : []),
  ]
}
