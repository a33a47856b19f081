#!/usr/bin/env node
// Stands in for node-gyp when prebuildify calls it: cmake-js needs neither Python nor Node's full headers.
// Leaves one addon in build/Release, linked so that it loads on systems with an older libstdc++.

const { execFileSync } = require('node:child_process')
const { join, resolve } = require('node:path')

const root = resolve(__dirname, '..')
const arch = process.argv.find((argument) => argument.startsWith('--arch='))?.slice('--arch='.length)
const args = ['rebuild', '--out', 'build/prebuild', '--config', 'Release', '--target', 'foretoken']
if (arch) args.push('--arch', arch)
args.push('--CDFORETOKEN_STATIC_RUNTIME=ON')
execFileSync(process.execPath, [join(root, 'node_modules', 'cmake-js', 'bin', 'cmake-js'), ...args], {
  cwd: root,
  stdio: 'inherit',
})
