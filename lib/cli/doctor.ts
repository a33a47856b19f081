import { Command } from 'commander'
import { examine } from '../doctor/examine.js'
import type { DoctorReport } from '../doctor/report.js'
import { oldestGlibc } from '../engine/libc.js'
import { addModelOptions, engineFlags, type ModelFlags } from './model-options.js'
import { printResult } from './print.js'

export function doctorCommand(): Command {
  return addModelOptions(new Command('doctor'))
    .description('show what foretoken finds on this machine, and test that it works')
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      `
The self-test creates a tiny model, samples, scores, trains and checks exactness; the status is 1 when it fails.
The report names this machine's hardware and folders, and nothing else; it goes nowhere but to the terminal.

Examples:
  foretoken doctor
  foretoken doctor --device cuda --json`,
    )
    .action(async ({ json, dtype: _, ...flags }: ModelFlags & { json?: boolean }) => {
      const report = await examine(engineFlags(flags))
      printResult(json, report, () => reportText(report))
      if (!report.ok) process.exitCode = 1
    })
}

/** The report for people: a line per fact. */
function reportText({ versions, binary, cpu, memory, gpu, selfTest, advice }: DoctorReport): string {
  const { foretoken, node, nodeApi, platform, libc } = versions
  const facts: [string, string][] = [
    ['foretoken', foretoken],
    ['Node', `${node}, Node-API ${nodeApi ?? 'unknown'}`],
    ['system', platform + libcText(platform, libc)],
    ['native core', 'problem' in binary ? 'could not be loaded' : binary.file],
    ['CPU', `${cpu.model}, ${count(cpu.processors, 'processor')}`],
    ['in use', cpu.threads === null ? 'nothing' : `${cpu.instructionSet}, ${count(cpu.threads, 'thread')}`],
    ['memory', `${gibibytes(memory.available)} GiB available of ${gibibytes(memory.total)}`],
    ...gpuLines(gpu),
    [
      'self-test',
      `${selfTest.ok ? 'passed' : 'FAILED'} in ${selfTest.seconds.toFixed(1)} s on ${selfTest.device ?? 'nothing'}`,
    ],
  ]
  const lines = facts.map(([name, value]) => `${name.padEnd(17)}${value}`)
  const checks = selfTest.checks.map(
    ({ name, ok, detail }) => `  ${ok ? 'ok  ' : 'FAIL'}  ${name}: ${detail.split('\n', 1)[0]}`,
  )
  const advised = advice.length === 0 ? [] : ['', ...advice.map((each) => `- ${each.replaceAll('\n', '\n  ')}`)]
  return [...lines, ...checks, ...advised].join('\n')
}

function gpuLines({ devices, driver, libraries, cuda }: DoctorReport['gpu']): [string, string][] {
  return [
    ...(devices.length === 0 ? [['GPU', 'none found'] as [string, string]] : []),
    ...devices.map(({ name, memory, computeCapability }): [string, string] => [
      'GPU',
      `${name}, ${gibibytes(memory)} GiB, compute capability ${computeCapability}`,
    ]),
    ['GPU driver', driver ?? 'none'],
    ...libraries.map(({ name, path }): [string, string] => [name, path ?? 'not found']),
    [
      'CUDA library',
      cuda === null ? 'not installed' : [cuda.library, ...cuda.reason.split('\n')].join(`\n${' '.repeat(17)}`),
    ],
  ]
}

function libcText(platform: string, libc: string | null): string {
  if (!platform.startsWith('linux')) return ''
  return libc === null ? ', without glibc' : `, ${libc} (${oldestGlibc} is needed)`
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

function gibibytes(bytes: number | null): string {
  return bytes === null ? '?' : (bytes / 2 ** 30).toFixed(1)
}
