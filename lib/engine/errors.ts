/**
 * What went wrong, as a stable name.
 *
 * The first group is the native core's (native/core/error.h); the second arises in TypeScript.
 */
export type ForetokenErrorCode =
  | 'INVALID_ARGUMENT'
  | 'INVALID_CONFIG'
  | 'UNSUPPORTED_CONFIG'
  | 'INVALID_CHECKPOINT'
  | 'IO'
  | 'OUT_OF_MEMORY'
  | 'ABORTED'
  | 'DISPOSED'
  | 'NON_FINITE'
  | 'DEVICE_UNAVAILABLE'
  | 'INTERNAL'
  | 'BINARY_NOT_FOUND'
  | 'INVALID_TOKENIZER'
  | 'INVALID_DATA'
  | 'DATA_CHANGED'
  | 'LOCKED'

/** The one error class of foretoken: `code` says what kind, `message` names the culprit and the remedy. */
export class ForetokenError extends Error {
  /** Always `ForetokenError`. */
  override readonly name = 'ForetokenError'
  /** What kind of error it is; stable over versions, unlike the message. */
  readonly code: ForetokenErrorCode

  constructor(code: ForetokenErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}
