import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { Corpus, CorpusDocument, CorpusStream } from '../../lib/corpus/index.js'

/** A fresh folder with these files; names that end in .gz are compressed. */
export function folderOf(files: Record<string, string | Uint8Array>): string {
  const folder = mkdtempSync(join(tmpdir(), 'foretoken-corpus-'))
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), name.endsWith('.gz') ? gzipSync(content) : content)
  }
  return folder
}

/** JSONL of texts. */
export function jsonl(texts: string[]): string {
  return texts.map((text) => `${JSON.stringify({ text })}\n`).join('')
}

/** All documents of a stream. */
export async function collect(stream: CorpusStream, most = Number.POSITIVE_INFINITY): Promise<CorpusDocument[]> {
  const documents: CorpusDocument[] = []
  while (documents.length < most) {
    const { value, done } = await stream.next()
    if (done) break
    documents.push(value)
  }
  return documents
}

/** The texts of one pass over a corpus. */
export async function textsOf(corpus: Corpus, part: 'train' | 'held-out' | 'all' = 'all'): Promise<string[]> {
  return (await collect(corpus.stream({ part }))).map((document) => document.text)
}
