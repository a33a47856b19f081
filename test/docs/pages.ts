import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import MarkdownIt from 'markdown-it'

export const root = join(import.meta.dirname, '..', '..')

/** A fenced block of a page. */
export interface Block {
  readonly page: string
  /** Of the opening fence, from 1. */
  readonly line: number
  /** The word after the fence. */
  readonly language: string
  readonly text: string
  /** Name of the file that its first line names in a comment, such as `# rpt.yaml`. */
  readonly file: string | undefined
  /** Why it is not run: the reason of `<!-- not run: … -->` before it. */
  readonly notRun: string | undefined
  /** What a program finds around it: the names of `<!-- given: a, b -->` before it. */
  readonly given: readonly string[]
}

/** A markdown page as the tests look at it. */
export interface Page {
  /** Relative to the repository. */
  readonly path: string
  readonly blocks: readonly Block[]
  /** Targets of links and images, with the line of the paragraph they stand in. */
  readonly links: readonly { readonly target: string; readonly line: number }[]
  /** Names that `#name` can lead to, as GitHub makes them. */
  readonly anchors: ReadonlySet<string>
  readonly headings: readonly { readonly level: number; readonly text: string }[]
  /** `code` inside of text. */
  readonly code: readonly { readonly text: string; readonly line: number }[]
}

/** Every page that the tests are about: README, CHANGELOG, docs/ and the list of examples. */
export function readPages(): Page[] {
  const docs = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md') && !name.startsWith(join('api', '/')))
    .map((name) => join('docs', name))
  return ['README.md', 'CHANGELOG.md', join('examples', 'README.md'), ...docs.sort()].map(readPage)
}

export function readPage(path: string): Page {
  return parsePage(path, readFileSync(join(root, path), 'utf8'))
}

export function parsePage(path: string, text: string): Page {
  const blocks: Block[] = []
  const links: { target: string; line: number }[] = []
  const headings: { level: number; text: string }[] = []
  const anchors = new Set<string>()
  const code: { text: string; line: number }[] = []
  const tokens = new MarkdownIt({ html: true }).parse(text, {})
  for (const [i, token] of tokens.entries()) {
    const line = (token.map?.[0] ?? 0) + 1
    if (token.type === 'fence') {
      const before = tokens[i - 1]
      const comment = before?.type === 'html_block' ? /^<!--\s*(.*?)\s*-->\s*$/s.exec(before.content)?.[1] : undefined
      blocks.push({
        page: path,
        line,
        language: token.info.trim(),
        text: token.content,
        file: /^(?:#|\/\/) ([\w./-]+\.\w+)\n/.exec(token.content)?.[1],
        notRun: /(?:^|; )not run: (.+)$/s.exec(comment ?? '')?.[1],
        given: /^given: ([\w, ]+)/.exec(comment ?? '')?.[1]?.split(/,\s*/) ?? [],
      })
    }
    if (token.type !== 'inline') continue
    for (const child of token.children ?? []) {
      const target = child.attrGet(child.type === 'image' ? 'src' : 'href')
      if (target !== null) links.push({ target, line })
      if (child.type === 'code_inline') code.push({ text: child.content, line })
    }
    const opening = tokens[i - 1]
    if (opening?.type === 'heading_open') {
      const title = (token.children ?? []).map(({ content }) => content).join('')
      headings.push({ level: Number(opening.tag.slice(1)), text: title })
      const name = anchorOf(title)
      let unique = name
      for (let n = 1; anchors.has(unique); ++n) unique = `${name}-${n}`
      anchors.add(unique)
    }
  }
  return { path, blocks, links, anchors, headings, code }
}

/** GitHub's name for a heading: lower case, punctuation left out, a hyphen for each space. */
function anchorOf(title: string): string {
  return title
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\p{M}\s_-]/gu, '')
    .trim()
    .replaceAll(' ', '-')
}

/** `page:line`, for messages. */
export function placeOf({ page, line }: Block): string {
  return `${page}:${line}`
}
