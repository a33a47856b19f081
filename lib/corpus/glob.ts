import type { Dirent } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'

/** Whether a path is a pattern: has one of `*`, `?`, `[`, `{`. */
export function isGlob(path: string): boolean {
  return /[*?[{]/.test(path)
}

/**
 * Compiles a pattern over `/`-separated paths: `*` and `?` stay within a name, `**` spans folders, `[a-z]` and
 * `[!a-z]` are one character, `{a,b}` is either.
 */
export function globToRegExp(pattern: string): RegExp {
  let source = ''
  let depth = 0
  for (let i = 0; i < pattern.length; ++i) {
    const character = pattern[i]!
    if (pattern.startsWith('**/', i)) {
      source += '(?:[^/]+/)*'
      i += 2
    } else if (pattern.startsWith('**', i)) {
      source += '.*'
      ++i
    } else if (character === '*') source += '[^/]*'
    else if (character === '?') source += '[^/]'
    else if (character === '[') {
      const close = pattern.indexOf(']', i + 2)
      if (close < 0) source += '\\['
      else {
        source += `[${pattern
          .slice(i + 1, close)
          .replace(/^!/, '^')
          .replaceAll('\\', '\\\\')}]`
        i = close
      }
    } else if (character === '{') {
      source += '(?:'
      ++depth
    } else if (character === '}' && depth > 0) {
      source += ')'
      --depth
    } else if (character === ',' && depth > 0) source += '|'
    else source += character.replace(/[\\^$.|+()\]}]/, '\\$&')
  }
  return new RegExp(`^${source}${')'.repeat(depth)}$`)
}

/** All files below a folder as `/`-separated paths relative to it, sorted by code units; hidden ones left out. */
export async function walk(folder: string, prefix = ''): Promise<string[]> {
  const entries = await readdir(join(folder, prefix), { withFileTypes: true })
  const files: string[] = []
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (entry.name.startsWith('.')) continue
    const path = prefix === '' ? entry.name : `${prefix}/${entry.name}`
    if (await isDirectory(entry, join(folder, path))) files.push(...(await walk(folder, path)))
    else files.push(path)
  }
  return files.sort((a, b) => (a < b ? -1 : 1))
}

/** Hub caches are made of symbolic links, so links count as what they point to. */
async function isDirectory(entry: Dirent, path: string): Promise<boolean> {
  return entry.isSymbolicLink() ? (await stat(path)).isDirectory() : entry.isDirectory()
}
