// `node scripts/platform-packages.mjs [folder]`: makes an npm package of each folder of prebuilds/, in build/packages or
// the folder given: @foretoken/linux-x64 with the addon, @foretoken/linux-x64-cuda with the CUDA library. The loader
// (lib/engine/native-binding.ts, cuda-library.ts) looks into them after prebuilds/, so that publishing them and leaving
// prebuilds/ out of the main package needs no change there.

import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { isProgram, quit, root, say } from './run.mjs'

const { version, license, engines, repository } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

/** The files of prebuilds/<platform>, and the package that each goes into. */
const contents = [
  { file: 'foretoken.node', suffix: '', what: 'The native core of foretoken' },
  { file: 'libforetoken_cuda.so', suffix: '-cuda', what: 'The CUDA library of foretoken' },
]

function makePackage({ platform, file, suffix, what }, prebuilds, folder) {
  const name = `@foretoken/${platform}${suffix}`
  const [os, cpu] = platform.split('-')
  const manifest = {
    ...{ name, version, license, description: `${what} for ${platform}.` },
    ...(repository && { repository }),
    ...{ os: [os], cpu: [cpu] },
    ...(os === 'linux' && { libc: ['glibc'] }),
    ...{ engines, preferUnplugged: true, files: [file, 'THIRD_PARTY_NOTICES'] },
  }
  const target = join(folder, `${platform}${suffix}`)
  rmSync(target, { recursive: true, force: true })
  mkdirSync(target, { recursive: true })
  writeFileSync(join(target, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  writeFileSync(
    join(target, 'README.md'),
    `# ${name}\n\n${what} for ${platform}. Installed by foretoken; of no use alone.\n`,
  )
  copyFileSync(join(prebuilds, platform, file), join(target, file))
  for (const each of ['LICENSE', 'THIRD_PARTY_NOTICES']) copyFileSync(join(root, each), join(target, each))
  return target
}

/** Makes the packages and gives their folders. */
export function platformPackages({
  prebuilds = join(root, 'prebuilds'),
  folder = join(root, 'build', 'packages'),
} = {}) {
  const platforms = existsSync(prebuilds) ? readdirSync(prebuilds) : []
  return platforms.flatMap((platform) =>
    contents
      .filter(({ file }) => existsSync(join(prebuilds, platform, file)))
      .map((content) => makePackage({ platform, ...content }, prebuilds, folder)),
  )
}

if (isProgram(import.meta)) {
  const [folder, prebuilds] = process.argv.slice(2).map((path) => resolve(path))
  const made = platformPackages({ ...(folder && { folder }), ...(prebuilds && { prebuilds }) })
  if (made.length === 0) quit('there are no prebuilt binaries: npm run prebuild')
  for (const each of made) say(each)
}
