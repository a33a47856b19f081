import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { DocumentFeed, type DocumentFeedOptions } from '../../lib/algorithm/document-feed.js'
import { textsCorpus } from '../../lib/algorithm/text-corpus.js'
import { Corpus } from '../../lib/corpus/index.js'
import { folderOf } from '../corpus/generated.js'
import { byteLevelTokenizer } from '../text/small-tokenizers.js'

const tokenizer = byteLevelTokenizer()
const corpus = textsCorpus(['short', 'a text that is cut into parts', '', 'end'])
const feed = (options: Partial<DocumentFeedOptions> = {}) =>
  new DocumentFeed({ tokenizer, corpus, epochs: 2, maxTokens: 10, ...options })
const textOf = (ids: Int32Array) => tokenizer.decode(ids)

async function drain(source: DocumentFeed): Promise<string[]> {
  const texts: string[] = []
  for (let fed = await source.next(); fed; fed = await source.next()) {
    texts.push(`${fed.epoch}:${fed.start}:${textOf(fed.document.ids)}`)
  }
  return texts
}

const epoch = (n: number) => [
  `${n}:0:short`,
  `${n}:0:a text tha`,
  `${n}:10:t is cut i`,
  `${n}:20:nto parts`,
  `${n}:0:end`,
]

test('long documents come in parts, epoch after epoch', async () => {
  expect(await drain(feed())).toEqual([...epoch(0), ...epoch(1)])
})

test('a feed goes on from any place, also within a document that comes in parts', async () => {
  const all = [...epoch(0), ...epoch(1)]
  for (let given = 0; given <= all.length; ++given) {
    const first = feed()
    for (let i = 0; i < given; ++i) await first.next()
    const second = feed()
    await second.restore(JSON.parse(JSON.stringify(first.state())))
    expect(second.documents).toBe(given)
    expect(await drain(second)).toEqual(all.slice(given))
  }
})

test('the end-of-text token follows the last part only', async () => {
  const source = feed({ endOfText: true, epochs: 1 })
  const ends: boolean[] = []
  for (let fed = await source.next(); fed; fed = await source.next()) {
    ends.push(fed.document.ids.at(-1) === tokenizer.eosId)
  }
  // The empty text is its end alone.
  expect(ends).toEqual([true, false, false, true, true, true])
})

test('what is left out is counted alike by a feed that goes on from any place', async () => {
  const lines = Array.from({ length: 9 }, (_, i) => (i % 3 === 1 ? '{"text":' : `{"text": "${'ab '.repeat(i + 1)}"}`))
  const folder = folderOf({ 'a.jsonl': `${lines.join('\n')}\n` })
  const corpus = await Corpus.open({
    sources: [{ path: join(folder, 'a.jsonl') }],
    onBadRecord: 'skip',
    shuffle: { seed: 3, window: 2 },
  })
  const counts: Record<string, number>[] = []
  const whole = feed({ corpus })
  const states: string[] = []
  do {
    states.push(JSON.stringify(whole.state()))
    counts.push(whole.leftOut)
  } while (await whole.next())
  expect(counts.at(-1)).toMatchObject({ json: 6, tokenizer: 0 })
  for (const [i, state] of states.slice(0, -1).entries()) {
    const second = feed({ corpus })
    await second.restore(JSON.parse(state))
    await second.next()
    expect(second.leftOut).toEqual(counts[i + 1])
    await second.close()
  }
  rmSync(folder, { recursive: true })
})

test('a corpus of files is a corpus for feeds', async () => {
  const file = new URL('../../README.md', import.meta.url).pathname
  const files = await Corpus.open({ sources: [{ path: file, format: 'text', unit: 'line' }] })
  const source = feed({ corpus: files, epochs: 1, maxTokens: 1000 })
  const first = await source.next()
  const second = feed({ corpus: files, epochs: 1, maxTokens: 1000 })
  await second.restore(JSON.parse(JSON.stringify(source.state())))
  expect(first!.document.length).toBeGreaterThan(0)
  expect(textOf((await second.next())!.document.ids)).toBe(textOf((await source.next())!.document.ids))
  await source.close()
  await second.close()
})
