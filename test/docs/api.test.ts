import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import '../cli/foretoken.js'
import { root } from './pages.js'

test('every public name has a comment, and the API reference is made without a warning', async () => {
  const typedoc = join(root, 'node_modules', 'typedoc', 'bin', 'typedoc')
  // It fails, and prints what is wrong, where there is a warning.
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [typedoc, '--emit', 'none'], { cwd: root })
  expect(`${stdout}${stderr}`).not.toMatch(/warning|error/i)
})
