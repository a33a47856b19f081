import { type FileHandle, open, rename, rm } from 'node:fs/promises'
import { ForetokenError } from '../engine/errors.js'
import { fromFloat16, toFloat16 } from './float16.js'

/** What an index of entropies was made from; training refuses one that was made from something else. */
export interface DifficultyHeader {
  /** Fingerprint of the tokenizer: positions count its tokens. */
  tokenizer: string
  /** Fingerprint or name of the model that gave the entropies. */
  proxy: string
  /** Fingerprint of the corpus. */
  corpus: string
  /** The entropy is over so many of the most likely tokens, renormalised. */
  topK: number
  /** How entropies are stored. float16 is exact to 0.001 nats below 4. */
  dtype: 'float16' | 'float32'
}

/*
 * The file, little-endian: "FTDIFF01", u32 length of the JSON header, the header padded with spaces to 4 bytes; then for
 * each document 32 bytes of SHA-256, u32 T, T entropies padded to 4 bytes; then for each document, sorted by hash,
 * 16 bytes of hash and a u64 offset; then u64 number of documents, u64 offset of that table, "FTDIFFND".
 */
const magic = 'FTDIFF01'
const endMagic = 'FTDIFFND'
const entryBytes = 24
const trailerBytes = 24
const recordHeadBytes = 36

/** Writes an index of entropies, document after document; the file appears under its name when it is complete. */
export class DifficultyIndexWriter {
  private offset = 0
  private readonly entries: Buffer[] = []
  private pending: Buffer[] = []
  private pendingBytes = 0

  private constructor(
    private readonly path: string,
    private readonly partial: string,
    private readonly file: FileHandle,
    private readonly header: DifficultyHeader,
  ) {}

  /** Begins an index. Throws `IO` when the file cannot be written. */
  static async create(path: string, header: DifficultyHeader): Promise<DifficultyIndexWriter> {
    const partial = `${path}.partial`
    const file = await open(partial, 'w').catch((cause: Error) => {
      throw new ForetokenError('IO', `${partial} cannot be written: ${cause.message}`, { cause })
    })
    const writer = new DifficultyIndexWriter(path, partial, file, header)
    const text = Buffer.from(JSON.stringify(header))
    const length = Buffer.alloc(4)
    length.writeUInt32LE(paddedTo4(text.length))
    const padding = Buffer.alloc(paddedTo4(text.length) - text.length, ' ')
    await writer.write(Buffer.concat([Buffer.from(magic), length, text, padding]))
    return writer
  }

  /** Adds a document: T entropies in nats, one per token given the tokens before it; NaN where there is none. */
  async add(hash: string, entropies: ArrayLike<number>): Promise<void> {
    const size = this.header.dtype === 'float16' ? 2 : 4
    const record = Buffer.alloc(recordHeadBytes + paddedTo4(entropies.length * size))
    record.write(hash, 'hex')
    record.writeUInt32LE(entropies.length, 32)
    for (let t = 0; t < entropies.length; ++t) {
      if (size === 2) record.writeUInt16LE(toFloat16(entropies[t]!), recordHeadBytes + 2 * t)
      else record.writeFloatLE(entropies[t]!, recordHeadBytes + 4 * t)
    }
    const entry = Buffer.alloc(entryBytes)
    entry.write(hash.slice(0, 32), 'hex')
    entry.writeBigUInt64LE(BigInt(this.offset), 16)
    this.entries.push(entry)
    await this.write(record)
  }

  /** Writes the table and gives the file its name. */
  async finish(): Promise<void> {
    const table = this.offset
    this.entries.sort(Buffer.compare)
    for (const entry of this.entries) await this.write(entry)
    const trailer = Buffer.alloc(trailerBytes)
    trailer.writeBigUInt64LE(BigInt(this.entries.length))
    trailer.writeBigUInt64LE(BigInt(table), 8)
    trailer.write(endMagic, 16)
    await this.write(trailer)
    await this.flush()
    await this.file.sync()
    await this.file.close()
    await rename(this.partial, this.path)
  }

  /** Gives up: removes what was written. */
  async discard(): Promise<void> {
    await this.file.close()
    await rm(this.partial, { force: true })
  }

  private async write(bytes: Buffer): Promise<void> {
    this.pending.push(bytes)
    this.pendingBytes += bytes.length
    this.offset += bytes.length
    if (this.pendingBytes > flushBytes) await this.flush()
  }

  private async flush(): Promise<void> {
    const bytes = Buffer.concat(this.pending)
    this.pending = []
    this.pendingBytes = 0
    // write() may take less than all of a large buffer.
    for (let at = 0; at < bytes.length; ) at += (await this.file.write(bytes, at)).bytesWritten
  }
}

/** An index of entropies on disk: the table of documents is in memory, entropies are read when asked for. */
export class DifficultyIndex {
  private constructor(
    private readonly path: string,
    private readonly file: FileHandle,
    /** What it was made from. */
    readonly header: DifficultyHeader,
    /** The number of documents. */
    readonly size: number,
    private readonly firstRecord: number,
    private readonly tableStart: number,
    private readonly table: Buffer,
  ) {}

  /** Opens an index. Throws `IO` when it cannot be read, `INVALID_DATA` when it is damaged or incomplete. */
  static async open(path: string): Promise<DifficultyIndex> {
    const file = await open(path).catch((cause: Error) => {
      throw new ForetokenError('IO', `${path} cannot be opened: ${cause.message}`, { cause })
    })
    try {
      const { size: bytes } = await file.stat()
      const damaged = (what: string) =>
        new ForetokenError('INVALID_DATA', `${path} is not a complete difficulty index (${what}); run the filter again`)
      if (bytes < 12 + trailerBytes) throw damaged('too short')
      const head = await readExactly(file, 0, 12)
      if (head.toString('latin1', 0, 8) !== magic) throw damaged('wrong first bytes')
      const trailer = await readExactly(file, bytes - trailerBytes, trailerBytes)
      if (trailer.toString('latin1', 16) !== endMagic) throw damaged('wrong last bytes')
      const size = Number(trailer.readBigUInt64LE(0))
      const tableStart = Number(trailer.readBigUInt64LE(8))
      const headerBytes = head.readUInt32LE(8)
      if (tableStart + size * entryBytes + trailerBytes !== bytes || 12 + headerBytes > tableStart) {
        throw damaged('its table does not fit its length')
      }
      const header = JSON.parse((await readExactly(file, 12, headerBytes)).toString()) as DifficultyHeader
      const table = await readExactly(file, tableStart, size * entryBytes)
      return new DifficultyIndex(path, file, header, size, 12 + headerBytes, tableStart, table)
    } catch (error) {
      await file.close()
      throw error
    }
  }

  /** The entropies of a document, or undefined where it is not in the index. */
  async get(hash: string): Promise<Float32Array | undefined> {
    const key = Buffer.from(hash.slice(0, 32), 'hex')
    let low = 0
    let high = this.size
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.table.compare(key, 0, 16, middle * entryBytes, middle * entryBytes + 16) < 0) low = middle + 1
      else high = middle
    }
    const at = low * entryBytes
    if (low === this.size || !this.table.subarray(at, at + 16).equals(key)) return undefined
    return (await this.record(Number(this.table.readBigUInt64LE(at + 16)))).entropies
  }

  /** All documents in the order they were added, one in memory at a time. */
  async *documents(): AsyncGenerator<{ hash: string; entropies: Float32Array }> {
    for (let at = this.firstRecord; at < this.tableStart; ) {
      const { hash, entropies, next } = await this.record(at)
      yield { hash, entropies }
      at = next
    }
  }

  /** Throws `DATA_CHANGED` where the index was made with another tokenizer or, when given, from another corpus. */
  check(expected: { tokenizer: string; corpus?: string }): void {
    for (const what of ['tokenizer', 'corpus'] as const) {
      if (expected[what] === undefined || expected[what] === this.header[what]) continue
      throw new ForetokenError(
        'DATA_CHANGED',
        `the difficulty index ${this.path} was made with another ${what}; run the filter again`,
      )
    }
  }

  /** Closes the file. */
  async close(): Promise<void> {
    await this.file.close()
  }

  private async record(at: number): Promise<{ hash: string; entropies: Float32Array; next: number }> {
    const size = this.header.dtype === 'float16' ? 2 : 4
    const head = await readExactly(this.file, at, recordHeadBytes)
    const T = head.readUInt32LE(32)
    const next = at + recordHeadBytes + paddedTo4(T * size)
    if (next > this.tableStart) {
      throw new ForetokenError('INVALID_DATA', `${this.path} is damaged at byte ${at}; run the filter again`)
    }
    const bytes = await readExactly(this.file, at + recordHeadBytes, T * size)
    const entropies = new Float32Array(T)
    for (let t = 0; t < T; ++t) {
      entropies[t] = size === 2 ? fromFloat16(bytes.readUInt16LE(2 * t)) : bytes.readFloatLE(4 * t)
    }
    return { hash: head.toString('hex', 0, 32), entropies, next }
  }
}

async function readExactly(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length)
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, length - done, at + done)
    if (bytesRead === 0) throw new ForetokenError('INVALID_DATA', 'a difficulty index ends too early')
    done += bytesRead
  }
  return bytes
}

function paddedTo4(length: number): number {
  return (length + 3) & ~3
}

const flushBytes = 1 << 20
