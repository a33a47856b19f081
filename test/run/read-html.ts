/** An element of a page as a browser's tokenizer finds it. */
export interface HtmlElement {
  name: string
  /** Its text, entities resolved; of nested elements too. */
  text: string
}

const empty = new Set(['meta', 'br', 'hr', 'img', 'link', 'input', '!doctype'])
const raw = new Set(['script', 'style', 'title'])

/**
 * Reads HTML strictly: every start tag has its end tag, in order; script, style and title run to the first end tag of
 * theirs, as in browsers. Throws where the page is not well-formed.
 */
export function elementsOf(html: string): HtmlElement[] {
  const found: HtmlElement[] = []
  const open: HtmlElement[] = []
  const tag = /<!--.*?-->|<(\/?)([a-zA-Z!][a-zA-Z0-9]*)((?:\s+[\w-]+(?:="[^"]*")?)*)\s*>/gs
  let at = 0
  for (let match = tag.exec(html); match; match = tag.exec(html)) {
    addText(html.slice(at, match.index))
    at = tag.lastIndex
    if (match[2] === undefined) continue
    const name = match[2].toLowerCase()
    if (match[1] === '/') {
      const closed = open.pop()
      if (closed?.name !== name) throw new Error(`</${name}> closes <${closed?.name}>`)
      continue
    }
    const element = { name, text: '' }
    found.push(element)
    if (empty.has(name)) continue
    if (raw.has(name)) {
      const end = html.indexOf(`</${name}>`, at)
      if (end < 0) throw new Error(`<${name}> does not end`)
      element.text = html.slice(at, end)
      at = end + name.length + 3
      tag.lastIndex = at
      continue
    }
    open.push(element)
  }
  addText(html.slice(at))
  if (open.length > 0) throw new Error(`<${open[0]!.name}> does not end`)
  return found

  function addText(text: string) {
    if (text.includes('<')) throw new Error(`a < stands in the text ${JSON.stringify(text.slice(0, 80))}`)
    for (const element of open) element.text += resolveEntities(text)
  }
}

export function textsOf(html: string, name: string): string[] {
  return elementsOf(html)
    .filter((element) => element.name === name)
    .map(({ text }) => text)
}

function resolveEntities(text: string): string {
  return text.replaceAll(/&(?:amp|lt|gt|quot|#39);/g, (entity) => entities[entity]!)
}

const entities: Record<string, string> = { '&amp;': '&', '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#39;': "'" }
