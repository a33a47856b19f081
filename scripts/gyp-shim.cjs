#!/usr/bin/env node
// Stands in for node-gyp when prebuildify calls it (scripts/prebuild.mjs): cmake-js needs neither Python nor Node's full
// headers. Leaves one addon in build/Release below the folder where it is called, linked so that it travels.

const { execFileSync } = require('node:child_process')
const { join, resolve } = require('node:path')

const root = resolve(__dirname, '..')
const arch = process.argv.find((argument) => argument.startsWith('--arch='))?.slice('--arch='.length)
const args = ['compile', '--out', join(process.cwd(), 'cmake'), '--config', 'Release', '--target', 'foretoken']
if (arch) args.push('--arch', arch)
args.push('--CDFORETOKEN_STATIC_LIBSTDCXX=ON', `--CDFORETOKEN_OUTPUT=${join(process.cwd(), 'build', 'Release')}`)
execFileSync(process.execPath, [join(root, 'node_modules', 'cmake-js', 'bin', 'cmake-js'), ...args], {
  cwd: root,
  stdio: 'inherit',
})
