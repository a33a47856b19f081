export { ForetokenError, type ForetokenErrorCode } from './engine/errors.js'
export { version } from './version.js'
