import { ForetokenError, type ForetokenErrorCode } from './errors.js'
import { nativeBinding } from './native-binding.js'
import type { EngineHandle, NativeEngine, NativeProgress } from './native-engine.js'
import type { ControlOptions } from './options.js'

/** One call of the addon, given what is the same for all: its first three arguments. */
export type NativeCall<Result> = (
  native: NativeEngine,
  handle: EngineHandle,
  id: number,
  progress: NativeProgress | undefined,
) => Promise<Result>

/** The calls of one engine handle: abort signals, progress functions and errors as JavaScript knows them. */
export class NativeCalls {
  readonly #native = nativeBinding()
  readonly #handle = this.#native.createHandle()
  #nextId = 0
  #disposal: Promise<void> | undefined

  get disposed(): boolean {
    return this.#disposal !== undefined
  }

  /** Queues a call. It rejects with a ForetokenError, the signal's reason, or what `onProgress` threw. */
  async run<Result>({ signal, onProgress }: ControlOptions, call: NativeCall<Result>): Promise<Result> {
    const site: { stack?: string } = {}
    Error.captureStackTrace(site, this.run)
    signal?.throwIfAborted()
    const id = this.#nextId
    this.#nextId = (id + 1) >>> 0
    const abort = () => this.#native.abort(this.#handle, id)
    let thrown: { error: unknown } | undefined
    const progress =
      onProgress &&
      ((done: number, total: number) => {
        if (thrown !== undefined) return
        try {
          onProgress(done, total)
        } catch (error) {
          thrown = { error }
          abort()
        }
      })
    signal?.addEventListener('abort', abort, { once: true })
    try {
      const result = await call(this.#native, this.#handle, id, progress)
      if (thrown === undefined) return result
    } catch (error) {
      const failure = fromNative(error, site)
      if (failure.code === 'ABORTED' && signal?.aborted === true) throw signal.reason
      if (thrown === undefined) throw failure
    } finally {
      signal?.removeEventListener('abort', abort)
    }
    throw thrown.error
  }

  /** Resolves when the engine's memory is free and its thread has ended. */
  dispose(): Promise<void> {
    const disposal = this.#disposal ?? this.#native.dispose(this.#handle)
    this.#disposal = disposal
    return disposal
  }
}

/** Errors born in the addon know nothing of the caller; the new one has the stack of the call that failed. */
function fromNative(error: unknown, site: { stack?: string }): ForetokenError {
  const { code = 'INTERNAL', message = String(error) } = error as { code?: ForetokenErrorCode; message?: string }
  const failure = new ForetokenError(code, message)
  const frames = site.stack?.indexOf('\n    at ') ?? -1
  if (frames >= 0) failure.stack = `${failure.name}: ${message}${site.stack?.slice(frames)}`
  return failure
}
