export {
  Corpus,
  type CorpusCursor,
  type CorpusDocument,
  type CorpusOptions,
  type CorpusPart,
  type CorpusSource,
  describeChanges,
  type SkippedCounts,
} from './corpus.js'
export { CorpusStream } from './corpus-stream.js'
export { type DifficultyHeader, DifficultyIndex, DifficultyIndexWriter } from './difficulty-index.js'
export { DifficultyStatistics, type DifficultySummary } from './difficulty-statistics.js'
export type { FieldOptions } from './fields.js'
export type { CorpusFile, FileFingerprint, FileFormat, FileLocation } from './files.js'
export { isHeldOut } from './held-out.js'
export { findHubDataset, type HubDataset, type HubOptions, type HubSnapshot, hubCacheFolder } from './hub-cache.js'
export { PhiloxStream, philox } from './philox.js'
export { type DifficultySplit, difficultySplits, type PositionOptions, selectPositions } from './positions.js'
export type { TextUnit } from './read-text.js'
export type { BadRecordKind, FileRecord } from './record.js'
export type { Place } from './split-bytes.js'
