// The package as it is published. `node scripts/release-tarball.mjs folder` packs it into the folder, with the addon of
// build/Release as its prebuilt binary, and prints what it holds as JSON; for the tests of the package.

import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { prebuild } from './prebuild.mjs'
import { isProgram, output, quit, root } from './run.mjs'

const sizeLimit = 100 * 2 ** 20

/** Every file of the package matches one of these. */
const known = [
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|THIRD_PARTY_NOTICES|CMakeLists\.txt)$/,
  /^dist\/[\w./-]+\.(js|d\.ts)$/,
  /^docs\/[\w-]+\.md$/,
  /^examples\/(README\.md|[\w-]+\.(ts|yaml)|demo\/[\w-]+\.yaml)$/,
  /^native\/(?!test\/)[\w./-]+\.(h|cpp|cu|cmake|ld|md)$/,
  /^prebuilds\/(linux-x64|linux-arm64|darwin-arm64)\/(foretoken\.node|libforetoken_cuda\.so)$/,
  /^scripts\/(build-from-source|build-native|cuda-toolchain|run|toolchain)\.mjs$/,
]

/** And it has all of these. */
const required = [
  ...['dist/index.js', 'dist/index.d.ts', 'dist/cli/main.js', 'native/node/addon.cpp', 'scripts/build-from-source.mjs'],
  ...['README.md', 'LICENSE', 'CHANGELOG.md', 'THIRD_PARTY_NOTICES', 'CMakeLists.txt'],
]

/** Packs a folder; `report` has npm's size and files. */
export function pack(folder, destination) {
  const text = output('npm', ['pack', folder, '--json', '--ignore-scripts', '--pack-destination', destination])
  if (text === undefined) quit(`npm pack ${folder} failed`)
  // npm 12 answers with an object by name, earlier ones with an array.
  const [report] = Object.values(JSON.parse(text.slice(text.search(/[[{]/))))
  return {
    file: join(destination, report.filename),
    size: report.size,
    files: report.files.map(({ path }) => path).sort(),
  }
}

/** What is wrong with what was packed, as sentences. */
export function tarballProblems({ size, files }) {
  const problems = files
    .filter((path) => !known.some((pattern) => pattern.test(path)))
    .map((path) => `the tarball has ${path}, which does not belong there`)
  for (const path of required) if (!files.includes(path)) problems.push(`the tarball lacks ${path}`)
  if (!files.some((path) => path.startsWith('prebuilds/'))) problems.push('the tarball has no prebuilt binary')
  if (size > sizeLimit) problems.push(`the tarball is of ${size} bytes; the limit is ${sizeLimit}`)
  return problems
}

/** Packs what package.json lists, with the addon of build/Release. The working tree stays as it is. */
export async function packWithBuiltAddon(destination) {
  const staging = mkdtempSync(join(tmpdir(), 'foretoken-package-'))
  try {
    const { files } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    for (const path of [
      'package.json',
      'README.md',
      'LICENSE',
      ...files.filter((each) => !/^!|^prebuilds$/.test(each)),
    ])
      if (existsSync(join(root, path))) cpSync(join(root, path), join(staging, path), { recursive: true })
    await prebuild({ folder: staging, reuse: true })
    mkdirSync(destination, { recursive: true })
    return pack(staging, destination)
  } finally {
    rmSync(staging, { recursive: true, force: true })
  }
}

if (isProgram(import.meta)) {
  const [folder] = process.argv.slice(2)
  if (folder === undefined) quit('which folder is the tarball to go to?')
  const packed = await packWithBuiltAddon(resolve(folder))
  console.log(JSON.stringify({ ...packed, problems: tarballProblems(packed) }))
}
