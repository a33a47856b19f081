import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { pipeline, type Transform } from 'node:stream'
import * as zlib from 'node:zlib'
import { Decompress } from 'fzstd'
import { ForetokenError } from '../engine/errors.js'

/** How a file is compressed, by its first bytes. */
export type Compression = 'none' | 'gzip' | 'zstd'

/** Looks at the first four bytes of a file. */
export async function detectCompression(path: string): Promise<Compression> {
  const file = await open(path).catch((cause: Error) => {
    throw new ForetokenError('IO', `${path} cannot be opened: ${cause.message}`, { cause })
  })
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0)
    if (bytesRead >= 2 && buffer.readUInt16BE(0) === 0x1f8b) return 'gzip'
    if (bytesRead === 4 && buffer.readUInt32LE(0) === 0xfd2fb528) return 'zstd'
    return 'none'
  } finally {
    await file.close()
  }
}

/**
 * The bytes of a file, decompressed, from `skip` on, in chunks of bounded size.
 * Throws `IO` naming the file when it cannot be read or its compression is damaged.
 */
export async function* readBytes(path: string, skip = 0): AsyncGenerator<Uint8Array> {
  const compression = await detectCompression(path)
  try {
    if (compression === 'none') {
      yield* createReadStream(path, { start: skip, highWaterMark: chunkBytes }) as AsyncIterable<Uint8Array>
      return
    }
    let left = skip
    for await (const chunk of decompress(path, compression)) {
      if (left >= chunk.length) left -= chunk.length
      else {
        yield left > 0 ? chunk.subarray(left) : chunk
        left = 0
      }
    }
  } catch (cause) {
    if (cause instanceof ForetokenError) throw cause
    const kind = compression === 'none' ? '' : ` as ${compression}`
    throw new ForetokenError('IO', `${path} cannot be read${kind}: ${(cause as Error).message}`, { cause })
  }
}

function decompress(path: string, compression: 'gzip' | 'zstd'): AsyncIterable<Uint8Array> {
  const source = createReadStream(path, { highWaterMark: chunkBytes })
  // Node has zstd since 22.15; the declarations used here are older.
  const createZstd = (zlib as { createZstdDecompress?: (options: object) => Transform }).createZstdDecompress
  if (compression === 'zstd' && !createZstd) return zstdWithoutNode(source)
  const options = { chunkSize: chunkBytes }
  const decoder = compression === 'gzip' ? zlib.createGunzip(options) : createZstd!(options)
  // Errors reach whoever reads the decoder; the callback only keeps pipeline from throwing them again.
  pipeline(source, decoder, () => {})
  return decoder
}

/** Zstandard by fzstd, for a Node without it. */
export async function* zstdWithoutNode(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let ready: Uint8Array[] = []
  const decoder = new Decompress((chunk) => ready.push(chunk))
  const take = () => {
    const chunks = ready
    ready = []
    return chunks
  }
  for await (const chunk of source) {
    decoder.push(chunk)
    yield* take()
  }
  decoder.push(new Uint8Array(0), true)
  yield* take()
}

const chunkBytes = 1 << 18
