/** A growable Int32Array. */
export class Int32List {
  #data = new Int32Array(64)
  #length = 0

  get length(): number {
    return this.#length
  }

  /** Makes room for `count` more entries and returns where they go; what the entries hold is up to the caller. */
  grow(count: number): Int32Array {
    const begin = this.#length
    const end = begin + count
    if (end > this.#data.length) {
      const larger = new Int32Array(Math.max(end, 2 * this.#data.length))
      larger.set(this.#data.subarray(0, begin))
      this.#data = larger
    }
    this.#length = end
    return this.#data.subarray(begin, end)
  }

  push(value: number): void {
    this.grow(1)[0] = value
  }

  at(index: number): number {
    return this.#data[index]!
  }

  /** A window on what is there now; later growth may leave it behind. */
  view(): Int32Array {
    return this.#data.subarray(0, this.#length)
  }
}
