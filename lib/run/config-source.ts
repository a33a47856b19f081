import { isMap, isNode, isPair, LineCounter, parseDocument } from 'yaml'
import { ForetokenError } from '../engine/errors.js'

/** A config file that was read: its values, and where each stands. */
export interface ConfigSource {
  /** Its name in messages. */
  readonly name: string
  /** The values as they stand there, unchecked. */
  readonly values: Record<string, unknown>
  /** `name:line:column` of a key, or of the nearest section that holds it. */
  locate(path: readonly PropertyKey[]): string
}

/** Reads YAML 1.2, of which JSON is a part. Throws `INVALID_CONFIG` with line and column where it does not parse. */
export function parseConfigSource(name: string, text: string): ConfigSource {
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset)
    return `${name}:${line}:${col}`
  }
  const error = document.errors[0] ?? document.warnings[0]
  if (error) throw new ForetokenError('INVALID_CONFIG', `${at(error.pos[0])}: ${error.message}`)
  const values = document.toJS() as unknown
  if (values !== null && (typeof values !== 'object' || Array.isArray(values))) {
    throw new ForetokenError('INVALID_CONFIG', `${at(0)}: a config is a list of keys and values, such as "method: rpt"`)
  }
  return {
    name,
    values: (values ?? {}) as Record<string, unknown>,
    locate(path) {
      for (let length = path.length; length > 0; --length) {
        const parent = length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true)
        const last = path[length - 1]!
        if (isMap(parent)) {
          const pair = parent.items.find(
            (item) => isPair(item) && isNode(item.key) && String(item.key) === String(last),
          )
          if (pair && isNode(pair.key) && pair.key.range) return at(pair.key.range[0])
        }
        const node = document.getIn(path.slice(0, length), true)
        if (isNode(node) && node.range) return at(node.range[0])
      }
      return name
    },
  }
}
