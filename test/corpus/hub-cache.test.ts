import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { Corpus, findHubDataset, hubCacheFolder } from '../../lib/corpus/index.js'
import { folderOf, jsonl, textsOf } from './generated.js'

const sha = '0123456789abcdef0123456789abcdef01234567'

/** A cache as huggingface_hub leaves it: blobs, a snapshot of links to them, a reference. */
function fakeCache(files: Record<string, string>): string {
  const cache = folderOf({})
  const repository = join(cache, 'datasets--acme--texts')
  Object.entries(files).forEach(([name, content], i) => {
    const link = join(repository, 'snapshots', sha, name)
    const blob = join(repository, 'blobs', String(i))
    for (const path of [link, blob]) mkdirSync(dirname(path), { recursive: true })
    writeFileSync(blob, content)
    symlinkSync(blob, link)
  })
  mkdirSync(join(repository, 'refs'))
  writeFileSync(join(repository, 'refs', 'main'), sha)
  return cache
}

const noFetch: typeof fetch = () => {
  throw new Error('the hub was asked')
}

describe('a dataset in the hub cache', () => {
  const cache = fakeCache({
    'data/b.jsonl': jsonl(['b']),
    'data/a.jsonl': jsonl(['a']),
    'README.md': 'no',
    'x.bin': '',
  })
  const find = (spec: object, environment: NodeJS.ProcessEnv = {}) =>
    findHubDataset(
      { dataset: 'acme/texts', ...spec },
      { environment: { HF_HUB_CACHE: cache, ...environment }, fetch: noFetch },
    )

  it('is used without asking the hub', async () => {
    const snapshot = await find({})
    expect(snapshot).toMatchObject({ sha, files: ['data/a.jsonl', 'data/b.jsonl'] })
    expect(readFileSync(join(snapshot.folder, snapshot.files[0]!), 'utf8')).toBe(jsonl(['a']))
    expect((await find({ files: '**/b.*' })).files).toEqual(['data/b.jsonl'])
  })
  it('is found by commit when offline', async () => {
    expect((await find({ revision: sha }, { HF_HUB_OFFLINE: '1' })).files.length).toBe(2)
  })
  it('that is not there is an error that says so when offline, and is asked for when not', async () => {
    const error = expect.objectContaining({ code: 'IO', message: expect.stringContaining('HF_HUB_OFFLINE') })
    await expect(find({ dataset: 'acme/other' }, { HF_HUB_OFFLINE: '1' })).rejects.toEqual(error)
    await expect(find({ files: '*.parquet' }, { HF_HUB_OFFLINE: 'true' })).rejects.toEqual(error)
    await expect(find({ dataset: 'acme/other' })).rejects.toThrow(/the hub was asked/)
    await expect(find({ revision: sha })).rejects.toThrow(/the hub was asked/)
  })
  it('is a source of a corpus like any other', async () => {
    vi.stubEnv('HF_HUB_CACHE', cache)
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    const corpus = await Corpus.open({ sources: [{ dataset: 'acme/texts', files: 'data/*.jsonl' }] })
    expect(await textsOf(corpus)).toEqual(['a', 'b'])
    vi.unstubAllEnvs()
  })
  it('lies where the environment says', () => {
    expect(hubCacheFolder({ HF_HUB_CACHE: '/a' })).toBe('/a')
    expect(hubCacheFolder({ HUGGINGFACE_HUB_CACHE: '/b' })).toBe('/b')
    expect(hubCacheFolder({ HF_HOME: '/c' })).toBe('/c/hub')
    expect(hubCacheFolder({ XDG_CACHE_HOME: '/d' })).toBe('/d/huggingface/hub')
  })
})

describe('a dataset that is not in the cache', () => {
  const content: Record<string, string> = { 'data/a.jsonl': jsonl(['a', 'b']), 'readme.txt.bak': 'x' }
  const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

  /** A hub with one repository; `served` is what becomes of a file on its way. */
  async function withHub(
    served: (content: string) => string,
    body: (environment: NodeJS.ProcessEnv, asked: string[], tokens: Set<string | undefined>) => Promise<void>,
  ) {
    const asked: string[] = []
    const tokens = new Set<string | undefined>()
    const server = createServer((request, response) => {
      const url = new URL(request.url!, 'http://hub')
      asked.push(`${request.method} ${url.pathname}`)
      tokens.add(request.headers.authorization)
      const json = (value: unknown) => {
        response.setHeader('content-type', 'application/json')
        response.end(JSON.stringify(value))
      }
      const info = (path: string) => {
        const size = content[path]!.length
        return { type: 'file', path, size, oid: 'git', lfs: { oid: sha256(content[path]!), size, pointerSize: 130 } }
      }
      if (url.pathname.includes('/tree/')) json(Object.keys(content).map(info))
      else if (url.pathname.includes('/resolve/')) {
        const path = Object.keys(content).find((name) => url.pathname.endsWith(name))!
        response.setHeader('etag', '"etag"')
        const ranged = request.headers.range === 'bytes=0-0'
        if (ranged) response.setHeader('content-range', `bytes 0-0/${content[path]!.length}`)
        response.statusCode = ranged ? 206 : 200
        response.end(ranged ? content[path]![0] : served(content[path]!))
      } else
        json({
          id: 'acme/texts',
          _id: '1',
          sha,
          private: false,
          downloads: 0,
          likes: 0,
          gated: false,
          lastModified: '2026-01-01',
        })
    })
    await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready))
    const environment = {
      HF_HUB_CACHE: folderOf({}),
      HF_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      HF_TOKEN: 'hf_secret',
    }
    try {
      await body(environment, asked, tokens)
    } finally {
      server.close()
    }
  }

  it('is downloaded by commit with the token, and then is in the cache', async () => {
    await withHub(
      (text) => text,
      async (environment, asked, tokens) => {
        const snapshot = await findHubDataset({ dataset: 'acme/texts' }, { environment })
        expect(snapshot).toMatchObject({ sha, files: ['data/a.jsonl'] })
        expect(readFileSync(join(snapshot.folder, 'data/a.jsonl'), 'utf8')).toBe(content['data/a.jsonl'])
        expect([...tokens]).toEqual(['Bearer hf_secret'])
        const downloads = asked.filter((line) => line.includes('/resolve/'))
        expect(downloads.length).toBeGreaterThan(0)
        for (const line of downloads) expect(line).toContain(sha)
        const again = await findHubDataset({ dataset: 'acme/texts' }, { environment, fetch: noFetch })
        expect(again).toEqual(snapshot)
      },
    )
  })

  it('is refused when a file arrives damaged, and leaves nothing that would pass for it', async () => {
    await withHub(
      (text) => text.toUpperCase(),
      async (environment) => {
        await expect(findHubDataset({ dataset: 'acme/texts' }, { environment })).rejects.toThrow(/arrived damaged/)
        const offline = { ...environment, HF_HUB_OFFLINE: '1' }
        await expect(findHubDataset({ dataset: 'acme/texts' }, { environment: offline })).rejects.toThrow(
          /not in the hub/,
        )
      },
    )
  })
})
