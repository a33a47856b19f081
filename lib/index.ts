export * from './algorithm/index.js'
export * from './corpus/index.js'
export { Engine } from './engine/engine.js'
export { ForetokenError, type ForetokenErrorCode } from './engine/errors.js'
export type { CrossEntropyTerm, LossTerm, PerToken, PolicyTerm } from './engine/loss-terms.js'
export type { ModelConfig } from './engine/model-config.js'
export type {
  AccumulateOptions,
  ControlOptions,
  CreateOptions,
  EngineOptions,
  Initialisation,
  MemoryPlanOptions,
  SampleOptions,
  SaveOptions,
  ScoreOptions,
  Seed,
  StepOptions,
  StopOptions,
  TokenBytes,
} from './engine/options.js'
export type {
  AccumulateResult,
  MemoryItem,
  Parameter,
  Rollout,
  SampleResult,
  SampleStatistics,
  ScoreResult,
  StepResult,
  TensorKind,
  TermStatistics,
  WeightsKind,
} from './engine/results.js'
export { type Segment, TokenForest } from './engine/token-forest.js'
export * from './evaluate/index.js'
export * from './reward/index.js'
export * from './run/index.js'
export * from './text/index.js'
export * from './train/index.js'
export { version } from './version.js'
