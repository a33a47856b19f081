import { closeSync, openSync, readSync } from 'node:fs'

/**
 * Why this machine's processor is too old for the kernels, or undefined where it is not or cannot be looked at.
 *
 * `FORETOKEN_ISA=portable` asks for the kernels that any processor can run.
 */
export function processorProblem(
  cpuinfo = process.platform === 'linux' && process.arch === 'x64' ? firstProcessor() : '',
  isa = process.env.FORETOKEN_ISA ?? '',
): string | undefined {
  const flags = /^flags\s*:(.*)$/m.exec(cpuinfo)?.[1]?.trim().split(/\s+/)
  if (flags === undefined || isa === 'portable') return undefined
  const missing = ['avx2', 'fma'].filter((flag) => !flags.includes(flag)).map((flag) => flag.toUpperCase())
  if (missing.length === 0) return undefined
  const name = /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? 'this processor'
  return (
    `${name} has no ${missing.join(' and no ')}; foretoken needs an x86-64 processor with AVX2 and FMA ` +
    '(Intel since Haswell, AMD since Zen). In a virtual machine, let the guest see the host processor. ' +
    'FORETOKEN_ISA=portable runs on any processor, but many times slower.'
  )
}

/** The beginning of /proc/cpuinfo: all of it takes long where there are hundreds of processors. */
function firstProcessor(): string {
  try {
    const file = openSync('/proc/cpuinfo', 'r')
    try {
      const bytes = Buffer.alloc(8192)
      return bytes.toString('latin1', 0, readSync(file, bytes))
    } finally {
      closeSync(file)
    }
  } catch {
    return ''
  }
}
