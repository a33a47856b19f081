export {
  buildDifficultyIndex,
  type DifficultyIndexOptions,
  type DifficultyIndexResult,
} from './build-difficulty-index.js'
export { type ConfigField, configFields, type FieldKind } from './config-fields.js'
export { type ConfigFlag, parseConfigFlags } from './config-flags.js'
export { configSchema, type RunConfig, type RunConfigInput } from './config-schema.js'
export { type ConfigSource, parseConfigSource } from './config-source.js'
export { readJsonLines } from './json-lines-log.js'
export { type ConfigOrigins, configYaml, readConfigSource, resolveConfig } from './load-config.js'
export type { RunManifest, RunSession } from './manifest.js'
export { type Chart, type ChartSeries, type Page, type PageTable, renderPage } from './page.js'
export { type Preset, presets, pretrainPreset } from './presets.js'
export type { ProgressStream } from './progress.js'
export { type RunOptions, type RunResult, startRun } from './run.js'
export { RunDirectory } from './run-directory.js'
export { type SampleLine, writeRunReport } from './run-report.js'
