// `npm run release:check`: whether the package may be published as it lies here. Needs `npm run prebuild` first. Prints a
// line per check, and ends with status 1 if one of them fails.

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { buildTypeScript } from './build-ts.mjs'
import { noticesProblems } from './notices.mjs'
import { checkBinaries } from './release-binaries.mjs'
import { pack, tarballProblems } from './release-tarball.mjs'
import { output, root } from './run.mjs'

const manifest = readJson('package.json')
const lock = readJson('package-lock.json')
const folder = mkdtempSync(join(tmpdir(), 'foretoken-release-'))

function readJson(...path) {
  return JSON.parse(readFileSync(join(root, ...path), 'utf8'))
}

/** Only those binaries are published that were built from this version. */
async function binaries() {
  const platforms = existsSync(join(root, 'prebuilds')) ? readdirSync(join(root, 'prebuilds')) : []
  if (platforms.length === 0) return ['there are no prebuilt binaries: npm run prebuild']
  const problems = platforms.flatMap((platform) => checkBinaries(join(root, 'prebuilds', platform)))
  const own = join(root, 'prebuilds', `${process.platform}-${process.arch}`, 'foretoken.node')
  if (problems.length > 0 || !existsSync(own)) return problems
  const built = output(process.execPath, ['-p', `require(${JSON.stringify(own)}).version`])?.trim()
  return built === manifest.version ? [] : [`${own} is of version ${built}: npm run prebuild`]
}

function versions() {
  const problems = []
  if (lock.version !== manifest.version || lock.packages[''].version !== manifest.version)
    problems.push('package-lock.json has another version than package.json: npm install')
  const changelog = readFileSync(join(root, 'CHANGELOG.md'), 'utf8')
  if (!new RegExp(`^## \\[${manifest.version.replaceAll('.', '\\.')}\\]`, 'm').test(changelog))
    problems.push(`CHANGELOG.md says nothing of ${manifest.version}`)
  return problems
}

function lockfile() {
  return Object.entries(lock.packages)
    .filter(([path, { resolved, integrity, link }]) => path !== '' && (resolved || (!integrity && !link)))
    .map(([path, { resolved }]) => `package-lock.json has ${resolved ?? 'no checksum'} for ${path}`)
}

function scripts() {
  const run = ['preinstall', 'install', 'postinstall', 'prepare'].filter((name) => manifest.scripts?.[name])
  const problems = run.map((name) => `package.json has a script ${name}, which would run or be blocked at installation`)
  if (manifest.gypfile !== false) problems.push('package.json lacks "gypfile": false, so npm would run node-gyp')
  return problems
}

async function published() {
  const { messages } = await publint({ pkgDir: root, strict: true, pack: 'npm' })
  return messages.map((message) => formatMessage(message, manifest, { color: false }))
}

function types() {
  const packed = pack(root, folder)
  const attw = join(root, 'node_modules', '@arethetypeswrong', 'cli', 'dist', 'index.js')
  // Every Node that the package supports can require ES modules, and TypeScript knows it under module nodenext.
  const args = [attw, packed.file, '--format', 'json', '--ignore-rules', 'cjs-resolves-to-esm']
  const text = output(process.execPath, args)
  const problems = tarballProblems(packed)
  return text === undefined ? [...problems, 'attw finds the types wrong: npx attw --pack .'] : problems
}

const checks = [
  ['prebuilt binaries: version, libraries, glibc', binaries],
  ['versions agree, and the changelog has this one', versions],
  ['the lockfile has checksums and no addresses', lockfile],
  ['nothing runs at installation', scripts],
  ['THIRD_PARTY_NOTICES is complete, and the licences are permitted', noticesProblems],
  ['publint', published],
  ['tarball: contents, size, types by attw', types],
]

buildTypeScript()
let failures = 0
for (const [name, check] of checks) {
  const problems = await check()
  console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'}  ${name}`)
  for (const problem of problems) console.log(`      ${problem.replaceAll('\n', '\n      ')}`)
  failures += problems.length
}
rmSync(folder, { recursive: true, force: true })
process.exitCode = failures === 0 ? 0 : 1
