// `npm run test:native [-- words]`: the native tests; with words, those whose name or file contains one of them.

import { join } from 'node:path'
import { buildNative, buildTree } from './build-native.mjs'
import { show } from './run.mjs'

buildNative('native_tests', { variables: { FORETOKEN_TESTS: 'ON' } })
show(join(buildTree, 'tests', 'foretoken_tests'), process.argv.slice(2))
