// NVIDIA's compiler for `npm run build:cuda`: the machine's own where there is one, else pinned wheels of the Python package
// index, about 110 MB, unpacked into .cuda/.

import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, delimiter, join } from 'node:path'
import { output, quit, root, run, say } from './run.mjs'

const folder = join(root, '.cuda')
const wheelFolder = join(folder, 'wheels')

// CUDA 13.0, because PTX of a newer compiler does not run on drivers of version 580.
const wheels = [
  {
    ...{ name: 'nvidia-cuda-nvcc', version: '13.0.88' },
    sha256: '56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03',
  },
  {
    ...{ name: 'nvidia-cuda-crt', version: '13.0.88' },
    sha256: '2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4',
  },
  {
    ...{ name: 'nvidia-nvvm', version: '13.0.88' },
    sha256: 'c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0',
  },
  {
    ...{ name: 'nvidia-cuda-cccl', version: '13.0.85' },
    sha256: 'e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649',
  },
  {
    ...{ name: 'nvidia-cuda-runtime', version: '13.0.96' },
    sha256: '7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548',
  },
  {
    ...{ name: 'nvidia-cutlass', version: '4.2.0.0' },
    sha256: 'f9599ada45c7bcb6bf53f7d3f0a7d154183e53451c01bfa59eecd37dd4a693f6',
    part: 'cutlass_library/source/include/*',
  },
]

/** The nvcc to use, or undefined: of CUDA_HOME, on PATH, in the usual folder, or fetched before. */
export function findNvcc(environment = process.env) {
  const { CUDA_HOME, CUDA_PATH, PATH = '' } = environment
  const fetched = join(folder, 'nvidia')
  const places = [
    ...[CUDA_HOME, CUDA_PATH].filter((home) => home).map((home) => join(home, 'bin')),
    ...PATH.split(delimiter),
    '/usr/local/cuda/bin',
    ...(existsSync(fetched) ? readdirSync(fetched).map((each) => join(fetched, each, 'bin')) : []),
  ]
  return places.map((place) => join(place, 'nvcc')).find((file) => existsSync(file))
}

/** Brings the wheels, checks them and unpacks them; gives the compiler. Ends the process where that is impossible. */
export async function fetchToolchain() {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    quit('the CUDA compiler is fetched for linux-x64 only: install the CUDA toolkit and set CUDA_HOME')
  say('fetching the CUDA compiler (110 MB) into .cuda/')
  mkdirSync(wheelFolder, { recursive: true })
  if (output('python3', ['-m', 'pip', '--version']) !== undefined) downloadWithPip()
  else for (const wheel of wheels) await download(wheel)
  const files = wheels.map(checkedFile)
  // Unpacked beside its place and then moved, so that what was interrupted is not taken for the whole.
  const staging = join(folder, 'unpacked')
  rmSync(staging, { recursive: true, force: true })
  for (const [i, file] of files.entries()) unpack(file, staging, wheels[i].part)
  for (const name of ['nvidia', 'cutlass_library']) {
    rmSync(join(folder, name), { recursive: true, force: true })
    renameSync(join(staging, name), join(folder, name))
  }
  for (const unneeded of [staging, wheelFolder]) rmSync(unneeded, { recursive: true, force: true })
  return findNvcc({}) ?? quit('the fetched wheels have no nvcc')
}

/** pip knows the person's index, proxy and certificates. */
function downloadWithPip() {
  const requirements = join(wheelFolder, 'requirements.txt')
  const lines = wheels.map(({ name, version, sha256 }) => `${name}==${version} --hash=sha256:${sha256}\n`)
  writeFileSync(requirements, lines.join(''))
  const options = ['--no-deps', '--only-binary=:all:', '--require-hashes', '--requirement', requirements]
  run('python3', ['-m', 'pip', 'download', ...options, '--dest', wheelFolder])
}

/** Without pip: the index's own page of the package (PEP 503), whose links carry checksums. */
async function download({ name, version, sha256 }) {
  const index = (process.env.PIP_INDEX_URL || 'https://pypi.org/simple').replace(/\/$/, '')
  try {
    const page = await get(`${index}/${name}/`, { accept: 'text/html' })
    const link = (await page.text()).match(new RegExp(`href="([^"]+)#sha256=${sha256}"`))
    if (link === null) throw new Error('the index has no file with its checksum')
    const url = new URL(link[1].replaceAll('&amp;', '&'), page.url)
    const wheel = await get(url)
    writeFileSync(join(wheelFolder, basename(url.pathname)), Buffer.from(await wheel.arrayBuffer()))
  } catch (error) {
    quit(`${name} ${version} could not be fetched: ${error.cause?.message ?? error.message}`)
  }
}

async function get(url, headers = {}) {
  const response = await fetch(url, { headers })
  if (!response.ok) throw new Error(`the index answers ${response.status} ${response.statusText}`)
  return response
}

function checkedFile({ name, version, sha256 }) {
  const beginning = `${name.replaceAll('-', '_')}-${version}-`
  const file = readdirSync(wheelFolder).find((each) => each.startsWith(beginning))
  if (file === undefined) quit(`${name} ${version} was not fetched`)
  const path = join(wheelFolder, file)
  const sum = createHash('sha256').update(readFileSync(path)).digest('hex')
  if (sum !== sha256) quit(`${path} has the wrong checksum: ${sum}`)
  return path
}

function unpack(file, target, part) {
  mkdirSync(target, { recursive: true })
  if (output('unzip', ['-v']) !== undefined) run('unzip', ['-q', '-o', file, ...(part ? [part] : []), '-d', target])
  else run('python3', ['-m', 'zipfile', '-e', file, target])
  // Python's zipfile forgets which files are programs.
  const vendor = join(target, 'nvidia')
  for (const home of existsSync(vendor) ? readdirSync(vendor) : [])
    for (const bin of ['bin', join('nvvm', 'bin')])
      for (const program of existsSync(join(vendor, home, bin)) ? readdirSync(join(vendor, home, bin)) : [])
        if (program !== 'crt') chmodSync(join(vendor, home, bin, program), 0o755)
}
