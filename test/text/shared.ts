import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'vitest'

/** Larger material beside the repository; tests that need it skip where it is absent. */
export function sharedPath(...parts: string[]): string {
  return join(import.meta.dirname, '..', '..', '..', 'shared', ...parts)
}

/** `describe` for tests that need `../shared/<path>`; where it is absent, one skipped test says so. */
export function describeShared(path: string, name: string, body: () => void | Promise<void>): void {
  if (existsSync(sharedPath(path))) describe(name, body)
  else describe(name, () => it.skip(`needs ../shared/${path}`))
}
