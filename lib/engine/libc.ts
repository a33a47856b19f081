/** The glibc that the prebuilt binary needs; checked by `npm run release:check`. */
export const oldestGlibc = '2.34'

/** The version of glibc that this process runs on, or undefined where there is another C library. */
export function glibcVersion(): string | undefined {
  if (process.platform !== 'linux') return undefined
  // Without it the report would look up the names of all open sockets.
  const report = process.report as NodeJS.ProcessReport & { excludeNetwork?: boolean }
  const before = report.excludeNetwork
  report.excludeNetwork = true
  try {
    const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } }
    return header?.glibcVersionRuntime
  } finally {
    if (before !== undefined) report.excludeNetwork = before
  }
}

/** Compares versions such as 2.36, number by number. */
export function isOlder(version: string, than: string): boolean {
  const [left, right] = [version, than].map((each) => each.split('.').map(Number))
  for (let i = 0; i < right!.length; ++i) {
    const difference = (left![i] ?? 0) - right![i]!
    if (difference !== 0) return difference < 0
  }
  return false
}
