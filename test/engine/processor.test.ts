import { describe, expect, test } from 'vitest'
import { isOlder } from '../../lib/engine/libc.js'
import { processorProblem } from '../../lib/engine/processor.js'

const cpuinfo = (flags: string) => `processor\t: 0\nmodel name\t: Intel(R) Core(TM) i7-3770\nflags\t\t: ${flags}\n`

describe('the processor', () => {
  test('this one is good enough', () => {
    expect(processorProblem()).toBeUndefined()
  })

  test('one without AVX2 is refused, with what is missing and what to do', () => {
    const problem = processorProblem(cpuinfo('fpu sse4_2 avx f16c'), '')
    expect(problem).toContain('Intel(R) Core(TM) i7-3770 has no AVX2 and no FMA')
    expect(problem).toContain('FORETOKEN_ISA=portable')
    expect(processorProblem(cpuinfo('fpu avx fma'), '')).toContain('has no AVX2;')
  })

  test('one with AVX2 and FMA is taken, and so is any where the portable kernels are asked for', () => {
    expect(processorProblem(cpuinfo('fpu avx avx2 fma bmi2'), '')).toBeUndefined()
    expect(processorProblem(cpuinfo('fpu sse2'), 'portable')).toBeUndefined()
  })

  test('nothing is claimed where the processor cannot be looked at', () => {
    expect(processorProblem('', '')).toBeUndefined()
  })
})

describe('versions of glibc', () => {
  test('are compared number by number', () => {
    expect(isOlder('2.9', '2.34')).toBe(true)
    expect(isOlder('2.34', '2.34')).toBe(false)
    expect(isOlder('2.100', '2.34')).toBe(false)
    expect(isOlder('2', '2.34')).toBe(true)
    expect(isOlder('3.1', '2.34')).toBe(false)
  })
})
