import { execFile } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
let folder = ''
let server: Server | undefined

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'foretoken-toolchain-'))
  cpSync(join(root, 'scripts'), join(folder, 'scripts'), { recursive: true })
  mkdirSync(join(folder, 'empty'))
})
afterEach(() => {
  server?.close()
  server = undefined
  rmSync(folder, { recursive: true, force: true })
})

function compilerIn(...path: string[]): string {
  const bin = join(folder, ...path)
  mkdirSync(bin, { recursive: true })
  writeFileSync(join(bin, 'nvcc'), '#!/bin/sh\n')
  chmodSync(join(bin, 'nvcc'), 0o755)
  return join(bin, 'nvcc')
}

/** What a program that has the script's functions in scope prints, and how it ends. */
function run(program: string, env: Record<string, string> = {}): Promise<{ status: number; out: string }> {
  const text = `import { fetchToolchain, findNvcc } from './scripts/cuda-toolchain.mjs'; ${program}`
  const args = ['--input-type=module', '--eval', text]
  const options = { cwd: folder, env: { PATH: join(folder, 'empty'), ...env } }
  return new Promise((resolve) => {
    execFile(process.execPath, args, options, (error, stdout, stderr) =>
      resolve({ status: Number(error?.code ?? 0), out: stdout + stderr }),
    )
  })
}

/** An index of Python packages whose every page and file is what `answer` says. */
function serve(answer: (path: string) => string): Promise<string> {
  const listening = createServer((request, response) => response.end(answer(request.url!)))
  server = listening
  return new Promise((resolve) => {
    listening.listen(0, '127.0.0.1', () =>
      resolve(`http://127.0.0.1:${(listening.address() as AddressInfo).port}/simple`),
    )
  })
}

const isFetchedFor = process.platform === 'linux' && process.arch === 'x64'

describe('scripts/cuda-toolchain.mjs', () => {
  test('takes the compiler of CUDA_HOME, then that on PATH, then one that was fetched before', async () => {
    const fetched = compilerIn('.cuda', 'nvidia', 'cu13', 'bin')
    const path = compilerIn('path')
    const home = compilerIn('home', 'bin')
    const find = async (env: Record<string, string>) => (await run('console.log(findNvcc())', env)).out.trim()
    expect(await find({ CUDA_HOME: join(folder, 'home'), PATH: join(folder, 'path') })).toBe(home)
    expect(await find({ PATH: join(folder, 'path') })).toBe(path)
    if (!existsSync('/usr/local/cuda/bin/nvcc')) expect(await find({})).toBe(fetched)
  })

  test.runIf(isFetchedFor)('refuses what has not the pinned checksum, though the index says so', async () => {
    const script = readFileSync(join(folder, 'scripts', 'cuda-toolchain.mjs'), 'utf8')
    const sums = [...script.matchAll(/sha256: '([0-9a-f]{64})'/g)].map(([, sum]) => sum)
    const index = await serve((path) => {
      if (path.startsWith('/files/')) return 'not a wheel'
      const versions = { 'nvidia-cuda-cccl': '13.0.85', 'nvidia-cuda-runtime': '13.0.96', 'nvidia-cutlass': '4.2.0.0' }
      const name = path.split('/')[2] as keyof typeof versions
      const file = `${name.replaceAll('-', '_')}-${versions[name] ?? '13.0.88'}-py3-none-any.whl`
      return sums.map((sum) => `<a href="../../files/${file}#sha256=${sum}">${file}</a>`).join('\n')
    })
    const { status, out } = await run('await fetchToolchain()', { PIP_INDEX_URL: index })
    expect(status).toBe(1)
    expect(out).toContain('nvidia_cuda_nvcc-13.0.88-py3-none-any.whl has the wrong checksum')
    expect(sums).toHaveLength(6)
    expect(existsSync(join(folder, '.cuda', 'nvidia'))).toBe(false)
  })

  test.runIf(isFetchedFor)('says what the index lacks', async () => {
    const index = await serve(() => '<a href="other.whl#sha256=0">other.whl</a>')
    const { status, out } = await run('await fetchToolchain()', { PIP_INDEX_URL: index })
    expect(status).toBe(1)
    expect(out).toContain('nvidia-cuda-nvcc 13.0.88 could not be fetched: the index has no file with its checksum')
  })
})
