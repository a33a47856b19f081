import { Int32List } from './int32-list.js'
import { checkInteger, checkTokenIds, invalidArgument } from './validate.js'

/** A run of tokens with at most one parent segment. */
export interface Segment {
  /** The segment that it continues, or null for a root. */
  readonly parent: number | null
  /** Its tokens are `begin` up to, not including, `end` in the forest's order. */
  readonly begin: number
  /** One past its last token. */
  readonly end: number
  /** The depth of its first token: how many tokens lie above it. */
  readonly position: number
}

/**
 * Token segments that share what they have in common: a token attends to the earlier tokens of its own segment and to
 * all tokens of the segments above, and its position is its depth.
 *
 * A sequence is a forest of one segment, a batch a forest of roots, a group of rollouts a root with leaves. A forest
 * only grows; a call that has been given one keeps what it was then.
 */
export class TokenForest {
  readonly #tokens = new Int32List()
  readonly #parents = new Int32List()
  readonly #begins = new Int32List()
  readonly #positions = new Int32List()

  /**
   * Adds a segment below `parent` (null for a root) and returns its index.
   *
   * @throws ForetokenError `INVALID_ARGUMENT` when the parent does not exist or `ids` is empty or not token ids.
   */
  add(parent: number | null, ids: ArrayLike<number>): number {
    if (parent !== null) this.#check(parent, 'parent')
    const tokens = checkTokenIds('ids', ids)
    if (tokens.length === 0) throw invalidArgument('ids must not be empty: a segment needs at least one token')
    const position = parent === null ? 0 : this.#positions.at(parent) + this.#lengthOf(parent)
    const segment = this.#parents.length
    this.#parents.push(parent ?? -1)
    this.#begins.push(this.#tokens.length)
    this.#positions.push(position)
    this.#tokens.grow(tokens.length).set(tokens)
    return segment
  }

  /** N, the number of tokens; shared ones count once. */
  get length(): number {
    return this.#tokens.length
  }

  /** S, the number of segments. */
  get segmentCount(): number {
    return this.#parents.length
  }

  /** (N) the tokens in the order of adding, which is the order of every per-token array. A copy. */
  get tokens(): Int32Array {
    return this.#tokens.view().slice()
  }

  /** Where a segment lies. Throws `INVALID_ARGUMENT` for an index that does not exist. */
  segment(index: number): Segment {
    this.#check(index, 'segment')
    const parent = this.#parents.at(index)
    const begin = this.#begins.at(index)
    return {
      parent: parent < 0 ? null : parent,
      begin,
      end: begin + this.#lengthOf(index),
      position: this.#positions.at(index),
    }
  }

  /** The segments from the root down to this one. */
  path(segment: number): number[] {
    this.#check(segment, 'segment')
    const path: number[] = []
    for (let s = segment; s >= 0; s = this.#parents.at(s)) path.push(s)
    return path.reverse()
  }

  /** The tokens from the root to the end of this segment: what a model without sharing would be given. */
  flatten(segment: number): Int32Array {
    const path = this.path(segment)
    const tokens = new Int32Array(this.#positions.at(segment) + this.#lengthOf(segment))
    const all = this.#tokens.view()
    for (const s of path) {
      const begin = this.#begins.at(s)
      tokens.set(all.subarray(begin, begin + this.#lengthOf(s)), this.#positions.at(s))
    }
    return tokens
  }

  /**
   * The part of a per-token array, such as `logprobs`, that belongs to a segment: a view, not a copy.
   *
   * @throws ForetokenError `INVALID_ARGUMENT` when the array ends before the segment does.
   */
  slice<Values extends Float32Array | Int32Array>(segment: number, perToken: Values): Values {
    const { begin, end } = this.segment(segment)
    if (perToken.length < end)
      throw invalidArgument(`perToken has ${perToken.length} entries, but segment ${segment} ends at ${end}`)
    return perToken.subarray(begin, end) as Values
  }

  /** @internal What the addon is given; it copies before the call returns. */
  pack(): { tokens: Int32Array; parents: Int32Array; lengths: Int32Array } {
    const lengths = new Int32Array(this.segmentCount)
    for (let s = 0; s < lengths.length; ++s) lengths[s] = this.#lengthOf(s)
    return { tokens: this.#tokens.view(), parents: this.#parents.view(), lengths }
  }

  #lengthOf(segment: number): number {
    const next = segment + 1
    const end = next < this.#begins.length ? this.#begins.at(next) : this.#tokens.length
    return end - this.#begins.at(segment)
  }

  #check(segment: number, name: string): void {
    checkInteger(name, segment, 0)
    if (segment >= this.segmentCount)
      throw invalidArgument(`${name} ${segment} does not exist: the forest has ${this.segmentCount} segments`)
  }
}
