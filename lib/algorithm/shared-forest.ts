import { TokenForest } from '../engine/token-forest.js'

/** Sequences laid into a forest in which equal beginnings are there once. */
export interface SharedForest {
  /** The radix tree of the sequences. */
  forest: TokenForest
  /** For each sequence the forest's index of each of its tokens. */
  indices: Int32Array[]
}

interface Node {
  tokens: Int32Array
  children: Map<number, Node>
  /** The forest's index of its first token. */
  begin: number
}

/** Builds the forest (a radix tree) of sequences of token ids; empty sequences have no tokens in it. */
export function shareBeginnings(sequences: readonly Int32Array[]): SharedForest {
  const roots = new Map<number, Node>()
  for (const sequence of sequences) insert(roots, sequence)
  const forest = new TokenForest()
  place(forest, roots, null)
  const indices = sequences.map((sequence) => indicesOf(roots, sequence))
  return { forest, indices }
}

function insert(roots: Map<number, Node>, sequence: Int32Array): void {
  let level = roots
  let at = 0
  while (at < sequence.length) {
    const first = sequence[at]!
    const node = level.get(first)
    if (!node) {
      level.set(first, { tokens: sequence.subarray(at), children: new Map(), begin: 0 })
      return
    }
    const rest = sequence.subarray(at)
    const common = commonLength(node.tokens, rest)
    if (common < node.tokens.length) split(node, common)
    at += common
    level = node.children
  }
}

function split(node: Node, length: number): void {
  const below: Node = { tokens: node.tokens.subarray(length), children: node.children, begin: 0 }
  node.tokens = node.tokens.subarray(0, length)
  node.children = new Map([[below.tokens[0]!, below]])
}

function commonLength(a: Int32Array, b: Int32Array): number {
  const most = Math.min(a.length, b.length)
  let length = 0
  while (length < most && a[length] === b[length]) ++length
  return length
}

function place(forest: TokenForest, roots: Map<number, Node>, parent: number | null): void {
  const stack = [...roots.values()].reverse().map((node) => ({ node, parent }))
  for (let entry = stack.pop(); entry; entry = stack.pop()) {
    const segment = forest.add(entry.parent, entry.node.tokens)
    entry.node.begin = forest.segment(segment).begin
    for (const node of [...entry.node.children.values()].reverse()) stack.push({ node, parent: segment })
  }
}

function indicesOf(roots: Map<number, Node>, sequence: Int32Array): Int32Array {
  const indices = new Int32Array(sequence.length)
  let level = roots
  for (let at = 0; at < sequence.length; ) {
    const node = level.get(sequence[at]!)!
    const length = Math.min(node.tokens.length, sequence.length - at)
    for (let i = 0; i < length; ++i) indices[at + i] = node.begin + i
    at += length
    level = node.children
  }
  return indices
}
