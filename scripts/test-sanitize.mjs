// `npm run test:sanitize [-- words]`: native tests and fuzzers under AddressSanitizer and UndefinedBehaviorSanitizer.
// With words, only the native tests whose name or file contains one of them.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { compile, isConfigured } from './build-native.mjs'
import { root, run, say, show } from './run.mjs'
import { ensureToolchain } from './toolchain.mjs'

const tree = join(root, 'build', 'sanitize')
const variables = { CMAKE_BUILD_TYPE: 'Debug', FORETOKEN_TESTS: 'ON', FORETOKEN_SANITIZE: 'address;undefined' }
const env = {
  // Without detect_stack_use_after_return: GCC before 14 places 64-byte vectors in its frames misaligned (bug 110027).
  // An absurd size in a file must come back as an error of ours, not as an abort of the allocator.
  ASAN_OPTIONS: 'detect_leaks=1:allocator_may_return_null=1:strict_string_checks=1',
  UBSAN_OPTIONS: 'print_stacktrace=1',
}

if (!isConfigured(tree, variables)) {
  ensureToolchain()
  const definitions = Object.entries(variables).map(([name, value]) => `-D${name}=${value}`)
  run('cmake', ['-S', root, '-B', tree, ...definitions])
}
say('compiling the native tests with sanitizers')
compile('native_tests', tree)
show(join(tree, 'tests', 'foretoken_tests'), process.argv.slice(2), { env })

if (process.argv.length === 2) {
  compile('fuzzers', tree)
  for (const name of fuzzers()) {
    say(name)
    show(join(tree, 'fuzzers', name), [], { env })
  }
}

/** A fuzzer without arguments does its whole, repeatable run. */
function fuzzers() {
  return readdirSync(join(root, 'native', 'test'), { recursive: true })
    .map((file) => file.match(/(?:^|\/)(fuzz_\w+)\.cpp$/)?.[1])
    .filter((name) => name !== undefined)
    .sort()
}
