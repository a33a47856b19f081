// What a Linux binary asks of the system that it is to run on, as binutils' objdump prints it.

import { output } from './run.mjs'

/** Orders versions such as 2.36, number by number. */
export function byVersion(left, right) {
  const [a, b] = [left, right].map((version) => version.split('.').map(Number))
  for (let i = 0; i < Math.max(a.length, b.length); ++i)
    if ((a[i] ?? 0) !== (b[i] ?? 0)) return (a[i] ?? 0) - (b[i] ?? 0)
  return 0
}

/**
 * The shared libraries that a binary needs, and the newest version that it asks of each family of symbols (GLIBC,
 * GLIBCXX, GCC); undefined where objdump cannot say.
 */
export function binaryFacts(file) {
  const text = output('objdump', ['-p', file])
  if (text === undefined) return undefined
  const needed = [...text.matchAll(/^\s+NEEDED\s+(\S+)/gm)].map(([, name]) => name).sort()
  const references = text.slice(text.indexOf('Version References'))
  const newest = {}
  for (const [, family, version] of references.matchAll(/\s(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)\s*$/gm))
    if (newest[family] === undefined || byVersion(version, newest[family]) > 0) newest[family] = version
  return { needed, newest }
}
