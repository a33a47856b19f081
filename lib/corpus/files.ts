import { createHash } from 'node:crypto'
import { open, stat } from 'node:fs/promises'
import { basename, isAbsolute, join, resolve } from 'node:path'
import { ForetokenError } from '../engine/errors.js'
import { globToRegExp, isGlob, walk } from './glob.js'
import { findHubDataset, type HubDataset } from './hub-cache.js'

/** How the records of a file are written. */
export type FileFormat = 'text' | 'jsonl' | 'parquet'

/** A file of the corpus. */
export interface CorpusFile {
  /** Where it is. */
  path: string
  /** Its name in messages and fingerprints: as given, or relative to the folder or pattern it was found by. */
  name: string
  /** How its records are written. */
  format: FileFormat
  /** The index of its source. */
  source: number
}

/** Where files come from: paths (files, folders, patterns) or a dataset of the hub. */
export type FileLocation =
  | { path: string | readonly string[]; format?: FileFormat }
  | (HubDataset & { format?: FileFormat })

/**
 * Lists the files of a source: given paths in the order given, those of folders and patterns sorted.
 * Throws `IO` for what does not exist and `INVALID_CONFIG` for a file whose format its name does not tell.
 */
export async function findFiles(location: FileLocation, source: number, baseFolder = '.'): Promise<CorpusFile[]> {
  if ('dataset' in location) {
    const { folder, files } = await findHubDataset(location)
    return files.map((name) => fileOf(join(folder, name), name, location.format, source))
  }
  const files: CorpusFile[] = []
  for (const path of typeof location.path === 'string' ? [location.path] : location.path) {
    const absolute = isAbsolute(path) ? path : resolve(baseFolder, path)
    const found = await stat(absolute).catch(() => undefined)
    if (found?.isFile()) files.push(fileOf(absolute, basename(path), location.format, source))
    else if (found?.isDirectory()) {
      for (const name of await walk(absolute)) {
        const format = location.format ?? formatOfName(name)
        if (format) files.push({ path: join(absolute, name), name, format, source })
      }
    } else if (isGlob(path)) {
      const { folder, pattern } = splitGlob(absolute)
      const names = (await stat(folder).catch(() => undefined))?.isDirectory() ? await walk(folder) : []
      const matcher = globToRegExp(pattern)
      const matching = names.filter((name) => matcher.test(name))
      if (matching.length === 0) throw new ForetokenError('IO', `no file matches ${path}`)
      for (const name of matching) files.push(fileOf(join(folder, name), name, location.format, source))
    } else throw new ForetokenError('IO', `${path} does not exist`)
  }
  if (files.length === 0) throw new ForetokenError('IO', `there is no text, JSONL or Parquet file in ${location.path}`)
  return files
}

/** What identifies the content of a file. */
export interface FileFingerprint {
  /** Its name as given, or relative to the folder or pattern it was found by. */
  name: string
  /** Its size. */
  bytes: number
  /** SHA-256 of the file, or of its first and last MiB. */
  digest: string
}

/** Fingerprints a file: by size, head and tail, or by all of its bytes. */
export async function fingerprintFile(file: CorpusFile, full: boolean): Promise<FileFingerprint> {
  const handle = await open(file.path)
  try {
    const { size } = await handle.stat()
    const hash = createHash('sha256')
    const buffer = Buffer.alloc(mebibyte)
    for (let at = 0; at < size; ) {
      const { bytesRead } = await handle.read(buffer, 0, mebibyte, at)
      if (bytesRead === 0) break
      hash.update(buffer.subarray(0, bytesRead))
      at += bytesRead
      if (!full && at < size - mebibyte) at = size - mebibyte
    }
    return { name: file.name, bytes: size, digest: hash.digest('hex') }
  } finally {
    await handle.close()
  }
}

/** The format that a file's name tells, if any. */
function formatOfName(name: string): FileFormat | undefined {
  const match = /\.([a-z]+)(?:\.(?:gz|zst|zstd))?$/i.exec(name)
  return formats[match?.[1]?.toLowerCase() ?? '']
}

const formats: Record<string, FileFormat> = {
  txt: 'text',
  text: 'text',
  md: 'text',
  jsonl: 'jsonl',
  ndjson: 'jsonl',
  parquet: 'parquet',
}

function fileOf(path: string, name: string, format: FileFormat | undefined, source: number): CorpusFile {
  const known = format ?? formatOfName(name)
  if (known) return { path, name, format: known, source }
  throw new ForetokenError(
    'INVALID_CONFIG',
    `the name of ${path} does not tell its format; set format to text, jsonl or parquet`,
  )
}

/** The folder that every match of a pattern lies in, and the pattern below it. */
function splitGlob(path: string): { folder: string; pattern: string } {
  const names = path.split('/')
  const first = names.findIndex(isGlob)
  return { folder: names.slice(0, first).join('/') || '/', pattern: names.slice(first).join('/') }
}

const mebibyte = 1 << 20
