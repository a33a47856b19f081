import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, readFile, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { ListFileEntry } from '@huggingface/hub'
import { ForetokenError } from '../engine/errors.js'
import { globToRegExp, walk } from './glob.js'

/** A dataset repository on the Hugging Face Hub. */
export interface HubDataset {
  /** `organisation/name`. */
  dataset: string
  /** Branch, tag or commit. Default `main`; a commit pins the data. */
  revision?: string
  /** A pattern over the files of the repository, such as `data/train-*.parquet`. Default all data files. */
  files?: string
}

/** Where the data of a dataset lies on this machine. */
export interface HubSnapshot {
  /** The commit. */
  sha: string
  /** The folder of its files. */
  folder: string
  /** Paths relative to the folder, sorted. */
  files: string[]
}

/** What a lookup may use; the defaults are those of the environment. */
export interface HubOptions {
  /** Where `HF_HOME`, `HF_HUB_OFFLINE` and `HF_TOKEN` are looked up; default the process's. */
  environment?: NodeJS.ProcessEnv
  /** Instead of the global one. */
  fetch?: typeof fetch
}

/**
 * Finds a dataset in the hub cache (the layout that Python's huggingface_hub uses), and downloads what is missing.
 *
 * The cache answers first: where it names a commit for the revision and has wanted files of it, the hub is not asked.
 * A commit given as such counts only after a complete download, or offline. `HF_HUB_OFFLINE` forbids asking; `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME` and `XDG_CACHE_HOME` are honoured. Downloads
 * always go by commit, so a run never mixes two states of a branch. Throws `IO` when there is nothing to use.
 */
export async function findHubDataset(spec: HubDataset, options: HubOptions = {}): Promise<HubSnapshot> {
  const environment = options.environment ?? process.env
  const revision = spec.revision ?? 'main'
  const cache = hubCacheFolder(environment)
  const repository = join(cache, `datasets--${spec.dataset.replaceAll('/', '--')}`)
  const wanted = spec.files === undefined ? dataFiles : globToRegExp(spec.files)

  const offline = isSet(environment.HF_HUB_OFFLINE)
  const known = (await commitOf(join(repository, 'refs', revision))) ?? (offline && isCommit(revision) ? revision : '')
  const cached = known === '' ? undefined : await cachedSnapshot(repository, known, wanted)
  if (cached) return cached
  const what = `dataset ${spec.dataset} at ${revision}${spec.files === undefined ? '' : `, files ${spec.files}`}`
  if (offline) {
    throw new ForetokenError(
      'IO',
      `${what} is not in the hub cache ${cache}, and HF_HUB_OFFLINE forbids downloading; ` +
        'unset it, or copy the cache of a machine that has the data',
    )
  }
  const hub = {
    repo: { type: 'dataset' as const, name: spec.dataset },
    hubUrl: environment.HF_ENDPOINT ?? 'https://huggingface.co',
    ...(environment.HF_TOKEN ? { accessToken: environment.HF_TOKEN } : {}),
    ...(options.fetch ? { fetch: options.fetch } : {}),
  }
  try {
    // Loaded here because most runs never download.
    const { datasetInfo, downloadFile, listFiles } = await import('@huggingface/hub')
    const sha = isCommit(revision)
      ? revision
      : (await datasetInfo({ ...hub, name: spec.dataset, revision, additionalFields: ['sha'] })).sha
    const entries: ListFileEntry[] = []
    for await (const entry of listFiles({ ...hub, revision: sha, recursive: true })) {
      if (entry.type === 'file' && wanted.test(entry.path)) entries.push(entry)
    }
    if (entries.length === 0) throw new Error('the repository has no such files')
    for (const entry of entries) {
      await store(repository, sha, entry, () => downloadFile({ ...hub, path: entry.path, revision: sha }))
    }
    // Written last: a reference stands for a complete download.
    await mkdir(dirname(join(repository, 'refs', revision)), { recursive: true })
    await writeFile(join(repository, 'refs', revision), sha)
    return { sha, folder: join(repository, 'snapshots', sha), files: entries.map((entry) => entry.path).sort() }
  } catch (cause) {
    throw new ForetokenError(
      'IO',
      `${what} cannot be downloaded: ${(cause as Error).message}; check the name, HF_TOKEN and the network, ` +
        'or set HF_HUB_OFFLINE=1 to use what the cache has',
      { cause },
    )
  }
}

/** The folder of the hub cache. */
export function hubCacheFolder(environment: NodeJS.ProcessEnv = process.env): string {
  const given = environment.HF_HUB_CACHE ?? environment.HUGGINGFACE_HUB_CACHE
  if (given) return given
  const home = environment.HF_HOME ?? join(environment.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface')
  return join(home, 'hub')
}

async function cachedSnapshot(repository: string, sha: string, wanted: RegExp): Promise<HubSnapshot | undefined> {
  const folder = join(repository, 'snapshots', sha)
  const found = await stat(folder).catch(() => undefined)
  if (!found?.isDirectory()) return undefined
  const files = (await walk(folder)).filter((path) => wanted.test(path))
  return files.length > 0 ? { sha, folder, files } : undefined
}

/** Puts one file into the cache: the content named by its hash, the snapshot a link to it. */
async function store(
  repository: string,
  sha: string,
  entry: ListFileEntry,
  download: () => Promise<Blob | null>,
): Promise<void> {
  const hash = entry.lfs?.oid ?? entry.xetHash ?? entry.oid
  if (!hash) throw new Error(`the hub names no hash for ${entry.path}`)
  const blob = join(repository, 'blobs', hash)
  const link = join(repository, 'snapshots', sha, entry.path)
  for (const path of [blob, link]) await mkdir(dirname(path), { recursive: true })
  if (!(await stat(blob).catch(() => undefined))) {
    const content = await download()
    if (!content) throw new Error(`the hub does not give ${entry.path}`)
    const partial = `${blob}.incomplete`
    const digest = createHash('sha256')
    let bytes = 0
    const watch = async function* (chunks: AsyncIterable<Uint8Array>) {
      for await (const chunk of chunks) {
        digest.update(chunk)
        bytes += chunk.length
        yield chunk
      }
    }
    await pipeline(content.stream(), watch, createWriteStream(partial))
    if (bytes !== entry.size || (entry.lfs && digest.digest('hex') !== entry.lfs.oid)) {
      await rm(partial)
      throw new Error(`${entry.path} arrived damaged (${bytes} of ${entry.size} bytes)`)
    }
    await rename(partial, blob)
  }
  if (!(await stat(link).catch(() => undefined))) await symlink(relative(dirname(link), blob), link)
}

async function commitOf(reference: string): Promise<string | undefined> {
  try {
    return (await readFile(reference, 'utf8')).trim()
  } catch {
    return undefined
  }
}

function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision)
}

/** huggingface_hub's reading of its switches. */
function isSet(value: string | undefined): boolean {
  return value !== undefined && ['1', 'on', 'yes', 'true'].includes(value.toLowerCase())
}

const dataFiles = /^(?!.*(?:README|LICENSE)).*\.(?:parquet|jsonl|ndjson|txt)(?:\.(?:gz|zst))?$/
