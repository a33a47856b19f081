// `node scripts/notices.mjs`: writes THIRD_PARTY_NOTICES, the licences of everything that the published package contains
// or installs. With --check it changes nothing, and fails where the file is not what it would write.

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isProgram, quit, root, say } from './run.mjs'

const file = join(root, 'THIRD_PARTY_NOTICES')

/** Licences that a program under Apache-2.0 may depend on without further ado. */
const permitted = new Set(['MIT', 'ISC', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD', 'Apache-2.0', 'BlueOak-1.0.0'])

/** Whether an SPDX expression leaves a permitted choice. */
function isPermitted(expression = '') {
  const choices = expression.replace(/[()]/g, '').split(/\s+OR\s+/)
  return choices.some((choice) => choice.split(/\s+AND\s+/).every((licence) => permitted.has(licence)))
}

/** The packages that come with an installation, in alphabetical order. */
function dependencies() {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  return Object.entries(packages)
    .filter(([path, { dev }]) => path !== '' && dev !== true)
    .map(([path, { version, license }]) => ({ name: path.replace(/^.*node_modules\//, ''), path, version, license }))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** The text of a package's licence file, or undefined where it has none. */
function licenceText(path) {
  const folder = join(root, path)
  const name = existsSync(folder) && readdirSync(folder).find((each) => /^(licen[cs]e|copying)(\.|$)/i.test(each))
  if (!name) return undefined
  return readFileSync(join(folder, name), 'utf8').replaceAll('\r\n', '\n').trim()
}

const head = `foretoken is licensed under the Apache License 2.0 (see LICENSE). It contains or installs the following.

Contained in the prebuilt binaries:

  node-addon-api and node-api-headers (MIT): headers, compiled into foretoken.node; their texts are below.
  libstdc++ of GCC (GPL-3.0-or-later WITH GCC-exception-3.1): linked statically into foretoken.node. The exception lets
    programs that GCC compiled carry its runtime library under terms of their own choice.
  CUDA Runtime (NVIDIA CUDA Toolkit EULA, where it is listed as redistributable): linked statically into
    libforetoken_cuda.so, in packages that have that file.

  CUTLASS (BSD-3-Clause): headers, compiled into libforetoken_cuda.so; its text is below.

Contained in the reports that foretoken writes: uPlot (MIT), its text is below.

Installed from npm:
`

/** What the file should hold, and what is wrong with the packages, as sentences. */
export function notices() {
  const problems = []
  const byText = new Map()
  const packages = dependencies()
  for (const { name, path, version, license } of packages) {
    if (!isPermitted(license))
      problems.push(`${name} ${version} is under ${license}, which is not on the list of permitted licences`)
    const text = licenceText(path)
    if (text === undefined && !existsSync(join(root, path))) problems.push(`${name} is not installed: npm ci`)
    byText.set(text, [...(byText.get(text) ?? []), name])
  }
  const cutlass = readFileSync(join(root, 'scripts', 'licences', 'cutlass.txt'), 'utf8').trim()
  byText.set(cutlass, [...(byText.get(cutlass) ?? []), 'CUTLASS'])
  const list = packages.map(({ name, version, license }) => `  ${name} ${version} (${license})`)
  const texts = [...byText].map(([text, names]) => {
    const title = names.join(', ')
    return `${'-'.repeat(80)}\n${title}\n\n${text ?? 'The package has no file with the text of its licence.'}\n`
  })
  return { text: `${head}\n${list.join('\n')}\n\n${texts.join('\n')}`, problems }
}

/** What is wrong with THIRD_PARTY_NOTICES, as sentences. */
export function noticesProblems() {
  const { text, problems } = notices()
  const isCurrent = existsSync(file) && readFileSync(file, 'utf8') === text
  return isCurrent ? problems : [...problems, 'THIRD_PARTY_NOTICES is out of date: node scripts/notices.mjs']
}

if (isProgram(import.meta)) {
  if (!process.argv.includes('--check')) writeFileSync(file, notices().text)
  const problems = noticesProblems()
  if (problems.length > 0) quit(problems.join('\n'))
  say('THIRD_PARTY_NOTICES is up to date')
}
