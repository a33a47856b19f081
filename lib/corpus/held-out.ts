/**
 * Whether a document is held out: the first 52 bits of its hash, read as a number from 0 to 1, are below the share.
 * Depends on nothing but its bytes, so copies of a document are on the same side, and a greater share holds out a
 * superset.
 */
export function isHeldOut(hash: string, share: number): boolean {
  return Number.parseInt(hash.slice(0, 13), 16) / 2 ** 52 < share
}
