import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { zstdWithoutNode } from '../../lib/corpus/byte-stream.js'
import { Corpus, type CorpusSource } from '../../lib/corpus/index.js'
import { describeShared, sharedPath } from '../text/shared.js'
import { collect, folderOf, jsonl, textsOf } from './generated.js'

const fixtures = join(import.meta.dirname, '..', 'fixtures', 'corpus')
const read = async (source: CorpusSource, options: { onBadRecord?: 'skip'; maxDocumentBytes?: number } = {}) =>
  textsOf(await Corpus.open({ sources: [source], ...options }))

/** The rows of scripts/make-corpus-fixtures.py. */
const rowText = (i: number) => `Document ${i}: ${'naïve café 😀 '.repeat(i % 5)}`
const rowTexts = Array.from({ length: 200 }, (_, i) => rowText(i))

describe('text files', () => {
  const folder = folderOf({
    'a.txt': 'one\ntwo\r\n\nthree\n  \nfour\nfive',
    'b.txt': '\ufeffwith mark',
    'long.txt': `${'x'.repeat(600_000)}SEP${'y'.repeat(700_000)}SEPend`,
  })
  const path = (name: string) => join(folder, name)

  it('are one document each by default, without the byte order mark', async () => {
    expect(await read({ path: [path('b.txt'), path('a.txt')] })).toEqual([
      'with mark',
      'one\ntwo\r\n\nthree\n  \nfour\nfive',
    ])
  })
  it('of which none is held out say that a file is one document', async () => {
    const corpus = await Corpus.open({ sources: [{ path: path('b.txt') }], heldOut: 0.01 })
    await expect(collect(corpus.stream({ part: 'held-out' }))).rejects.toThrow(
      "of the corpus's 1 documents none is held out; heldOut (0.01) is a share of documents, each decided by its hash: " +
        'change it, or make more documents of the text (unit: paragraph or unit: line)',
    )
    const all = await Corpus.open({ sources: [{ path: path('b.txt') }], heldOut: 0.999 })
    await expect(collect(all.stream({ part: 'train' }))).rejects.toThrow("of the corpus's 1 documents all are held out")
    const spoilt = folderOf({ 'spoilt.jsonl': '{\n\n{"text": ""}\n' })
    const empty = await Corpus.open({ sources: [{ path: spoilt }], onBadRecord: 'skip' })
    await expect(collect(empty.stream())).rejects.toThrow(
      'the corpus has no documents (left out: 1 json, 1 empty); check sources and fields',
    )
  })
  it('may be split into lines', async () => {
    expect(await read({ path: path('a.txt'), unit: 'line' })).toEqual(['one', 'two', 'three', '  ', 'four', 'five'])
  })
  it('may be split into paragraphs at blank lines', async () => {
    expect(await read({ path: path('a.txt'), unit: 'paragraph' })).toEqual(['one\ntwo\r', 'three', 'four\nfive'])
  })
  it('may be split at a separator that spans chunks of reading', async () => {
    const texts = await read({ path: path('long.txt'), unit: { separator: 'SEP' } })
    expect(texts.map((text) => text.length)).toEqual([600_000, 700_000, 3])
    expect(new Set(texts[0]).size + new Set(texts[1]).size).toBe(2)
  })
  it('say the line on which a document begins', async () => {
    const corpus = await Corpus.open({ sources: [{ path: path('a.txt'), unit: 'paragraph' }] })
    expect((await collect(corpus.stream())).map((document) => document.line)).toEqual([1, 4, 6])
  })
})

describe('JSONL', () => {
  it('gives a field, or a template over fields, also from nested objects', async () => {
    const line = JSON.stringify({ text: 'T', problem: 'P {x}', meta: { n: 3, tags: ['a', 'b'] }, 'a.b': 'dot' })
    const path = join(folderOf({ 'x.jsonl': `${line}\n\n${line}` }), 'x.jsonl')
    expect(await read({ path })).toEqual(['T', 'T'])
    expect(await read({ path, field: 'problem' })).toEqual(['P {x}', 'P {x}'])
    expect(await read({ path, field: 'a.b' })).toEqual(['dot', 'dot'])
    expect(await read({ path, template: 'Q: {problem}\n{{{meta.n}}} {meta.tags.1} \\frac{1}{2}' })).toEqual(
      new Array(2).fill('Q: P {x}\n{3} b \\frac{1}{2}'),
    )
  })
  it('is the same compressed by gzip, also of several members, and by zstd', async () => {
    const folder = folderOf({ 'a.jsonl': jsonl(rowTexts), 'b.jsonl.gz': jsonl(rowTexts) })
    expect(await read({ path: join(folder, 'a.jsonl') })).toEqual(rowTexts)
    expect(await read({ path: join(folder, 'b.jsonl.gz') })).toEqual(rowTexts)
    const twice = Buffer.concat([readFileSync(join(folder, 'b.jsonl.gz')), readFileSync(join(folder, 'b.jsonl.gz'))])
    const two = folderOf({ 'c.jsonl': twice })
    expect(await read({ path: join(two, 'c.jsonl') })).toEqual([...rowTexts, ...rowTexts])
    expect(await read({ path: join(fixtures, 'lines.jsonl.zst') })).toEqual(rowTexts)
  })
  it('is read from zstd without help of Node, and a cut file is an error', async () => {
    const bytes = readFileSync(join(fixtures, 'lines.jsonl.zst'))
    async function* inPieces(end: number) {
      for (let at = 0; at < end; at += 100) yield bytes.subarray(at, Math.min(end, at + 100))
    }
    const parts: Uint8Array[] = []
    for await (const part of zstdWithoutNode(inPieces(bytes.length))) parts.push(part)
    const lines = Buffer.concat(parts).toString().trim().split('\n')
    expect(lines.map((line) => JSON.parse(line).text)).toEqual(rowTexts)
    const cut = (async () => {
      for await (const _ of zstdWithoutNode(inPieces(bytes.length - 7)));
    })()
    await expect(cut).rejects.toThrow()
  })
})

describe('Parquet', () => {
  for (const codec of ['snappy', 'zstd', 'gzip']) {
    it(`by pyarrow with ${codec} gives the rows, 64-bit integers exactly`, async () => {
      const path = join(fixtures, `rows-${codec}.parquet`)
      expect(await read({ path })).toEqual(rowTexts)
      const templated = await read({ path, template: '{id} {meta.source} {meta.score}' })
      expect(templated[70]).toBe(`${9007199254740993n + 70n} s1 8.75`)
    })
  }
})

describe('files', () => {
  const folder = folderOf({
    'b/two.txt': '2',
    'a/one.txt': '1',
    'a/deep/three.md': '3',
    'a/.hidden.txt': 'no',
    'a/ignored.bin': 'no',
    'c.jsonl': jsonl(['4']),
  })
  it('of a folder are found in order, all kinds together', async () => {
    expect(await read({ path: folder })).toEqual(['3', '1', '2', '4'])
  })
  it('may be given by pattern', async () => {
    expect(await read({ path: join(folder, '**/*.txt') })).toEqual(['1', '2'])
    expect(await read({ path: join(folder, '{a,b}/*.txt') })).toEqual(['1', '2'])
    expect(await read({ path: join(folder, 'a/**/t[a-z]ree.md') })).toEqual(['3'])
    expect(await read({ path: join(folder, '[!b]/on?.txt') })).toEqual(['1'])
  })
  it('that do not exist, match nothing or have an unknown format are named', async () => {
    await expect(read({ path: join(folder, 'none.txt') })).rejects.toThrow(/none\.txt does not exist/)
    await expect(read({ path: join(folder, '*.parquet') })).rejects.toThrow(/no file matches/)
    await expect(read({ path: join(folder, 'a/ignored.bin') })).rejects.toThrow(/set format/)
    await expect(read({ path: join(folder, 'c.jsonl'), field: 'x', template: '{x}' })).rejects.toThrow(/both field/)
  })
  it('that are damaged are named', async () => {
    const gz = readFileSync(join(folderOf({ 'x.jsonl.gz': jsonl(rowTexts) }), 'x.jsonl.gz'))
    const damaged = folderOf({ 'cut.jsonl': gz.subarray(0, gz.length - 20), 'bad.parquet': 'PAR1 but not really PAR1' })
    await expect(read({ path: join(damaged, 'cut.jsonl') })).rejects.toThrow(/cut\.jsonl cannot be read as gzip/)
    await expect(read({ path: join(damaged, 'bad.parquet') })).rejects.toThrow(/bad\.parquet cannot be read as Parquet/)
    rmSync(damaged, { recursive: true })
  })
})

describe('bad records', () => {
  const folder = folderOf({
    'bad.jsonl': Buffer.concat([
      Buffer.from('{"text":"good"}\n{"text": \n{"other":1}\n{"text":null}\n{"text":{}}\n'),
      Buffer.from([0x7b, 0x22, 0x74, 0x65, 0x78, 0x74, 0x22, 0x3a, 0x22, 0xff, 0x22, 0x7d, 0x0a]),
      Buffer.from('{"text":"\\ud800"}\n{"text":""}\n[]\n{"text":"last"}'),
    ]),
    'utf8.txt': Buffer.from([0x61, 0xc3]),
    'long.jsonl': jsonl(['a', 'b'.repeat(3_000_000), 'c']),
  })
  const sources = (name: string) => [{ path: join(folder, name) }]
  const failure = async (name: string, field?: string) => {
    const corpus = await Corpus.open({ sources: [{ path: join(folder, name), ...(field ? { field } : {}) }] })
    const stream = corpus.stream()
    return collect(stream).then(
      () => 'no error',
      (error: Error & { code: string }) => `${error.code} ${error.message.replace(folder, '')}`,
    )
  }

  it('are an error with file and line', async () => {
    expect(await failure('bad.jsonl')).toMatch(/^INVALID_DATA \/bad\.jsonl:2: the line is not valid JSON/)
    expect(await failure('bad.jsonl', 'other')).toMatch(/\/bad\.jsonl:1: field 'other' is missing/)
    expect(await failure('utf8.txt')).toMatch(/\/utf8\.txt:1: the text is not valid UTF-8/)
  })
  it('are counted and skipped where the options say so', async () => {
    const corpus = await Corpus.open({ sources: sources('bad.jsonl'), onBadRecord: 'skip' })
    const stream = corpus.stream()
    expect((await collect(stream)).map(({ text, line }) => [text, line])).toEqual([
      ['good', 1],
      ['last', 10],
    ])
    expect(stream.skipped).toEqual({ json: 1, field: 4, encoding: 2, size: 0, empty: 1 })
  })
  it('that are too long are passed over without being held', async () => {
    const options = { onBadRecord: 'skip', maxDocumentBytes: 1000 } as const
    const corpus = await Corpus.open({ sources: sources('long.jsonl'), ...options })
    const stream = corpus.stream()
    expect((await collect(stream)).map(({ text, line }) => [text, line])).toEqual([
      ['a', 1],
      ['c', 3],
    ])
    expect(stream.skipped.size).toBe(1)
    for (const unit of ['file', 'paragraph', 'line', { separator: 'x' }] as const) {
      await expect(
        read({ path: join(folder, 'long.jsonl'), format: 'text', unit }, { maxDocumentBytes: 1000 }),
      ).rejects.toThrow(/longer than 1000 bytes/)
    }
  })
  it('of Parquet are found too', async () => {
    const corpus = await Corpus.open({ sources: [{ path: join(fixtures, 'broken.parquet') }], onBadRecord: 'skip' })
    const stream = corpus.stream()
    expect((await collect(stream)).map(({ text, line }) => [text, line])).toEqual([
      ['good', 1],
      ['also good', 4],
    ])
    expect(stream.skipped).toMatchObject({ encoding: 1, field: 1 })
    const missing = await Corpus.open({ sources: [{ path: join(fixtures, 'broken.parquet'), field: 'body' }] })
    await expect(collect(missing.stream())).rejects.toThrow(/broken\.parquet:1: field 'body' is missing/)
  })
})

describeShared('data/omni_math.jsonl', 'OmniMATH', () => {
  it('streams as problem and solution', async () => {
    const source = { path: sharedPath('data', 'omni_math.jsonl'), template: '{problem}\n\n{solution}' }
    const texts = await read(source)
    const lines = readFileSync(source.path, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(texts).toEqual(lines.map((line) => `${line.problem}\n\n${line.solution}`))
  })
})
