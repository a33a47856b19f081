import type { ModelConfig } from './model-config.js'
import type {
  AccumulateResult,
  MemoryItem,
  Parameter,
  SampleResult,
  StepResult,
  TensorKind,
  WeightsKind,
} from './results.js'

declare const handle: unique symbol

/** An engine and its thread, as an object that only the addon can look into. */
export interface EngineHandle {
  readonly [handle]: true
}

export type NativeProgress = (done: number, total: number) => void

export interface NativeEngineOptions {
  device?: string | undefined
  cudaLibrary?: string | undefined
  dtype?: string | undefined
  allowTf32?: boolean | undefined
  bfloat16State?: boolean | undefined
  threads?: number | undefined
  batchTokens?: number | undefined
  cacheTokens?: number | undefined
  memoryLimit?: number | undefined
  recompute?: boolean | undefined
}

export interface NativeInitialisation {
  seed?: bigint | undefined
  embedding?: number | undefined
  head?: number | undefined
  projection?: number | undefined
  outputProjection?: number | undefined
  scaleByFanIn?: boolean | undefined
}

export interface NativeFacts {
  config: ModelConfig
  device: string
  deviceDescription: string
  parameters: Parameter[]
}

/** Segment s holds the next `lengths[s]` tokens and hangs below segment `parents[s]`, or below nothing (-1). */
export interface NativeForest {
  tokens: Int32Array
  parents: Int32Array
  lengths: Int32Array
}

export interface NativeScoreOptions {
  temperature?: number | undefined
  weights?: WeightsKind | undefined
  topEntropy?: number | undefined
  argmax?: boolean | undefined
  logits?: Int32Array | undefined
}

/** Arrays that were not asked for are empty. */
export interface NativeScoreResult {
  logprobs: Float32Array
  entropy: Float32Array
  topEntropy: Float32Array
  argmax: Int32Array
  logits: Float32Array
}

export interface NativeSampleOptions {
  from: Int32Array
  n?: number | undefined
  maxTokens?: number | undefined
  minTokens?: number | undefined
  temperature?: number | undefined
  topK?: number | undefined
  topP?: number | undefined
  minP?: number | undefined
  seed?: bigint | undefined
  rolloutIds?: Uint32Array | undefined
  bannedTokens?: Int32Array | undefined
  stopTokens?: Int32Array | undefined
  stopTexts?: Uint8Array[] | undefined
  weights?: WeightsKind | undefined
  maxSequences?: number | undefined
  keepActivations?: boolean | undefined
}

/** Per-token arrays are as long as the forest. */
export interface NativeCrossEntropyTerm {
  kind: 'cross-entropy'
  weights?: Float32Array | undefined
  coefficient?: number | undefined
  normaliser?: number | undefined
}

/** Per-token arrays are as long as the forest. */
export interface NativePolicyTerm {
  kind: 'policy'
  segments: Int32Array
  advantages: Float32Array
  advantagesPerToken: boolean
  oldLogprobs?: Float32Array | undefined
  referenceLogprobs?: Float32Array | undefined
  weights?: Float32Array | undefined
  loss?: string | undefined
  clipLow?: number | undefined
  clipHigh?: number | undefined
  dualClip?: number | undefined
  aggregation?: string | undefined
  normaliser?: number | undefined
  klCoefficient?: number | undefined
  klEstimator?: string | undefined
  entropyCoefficient?: number | undefined
  coefficient?: number | undefined
}

export type NativeLossTerm = NativeCrossEntropyTerm | NativePolicyTerm

export interface NativeAccumulateOptions {
  temperature?: number | undefined
  recompute?: boolean | undefined
  batchTokens?: number | undefined
}

export interface NativeStepOptions {
  learningRate: number
  beta1?: number | undefined
  beta2?: number | undefined
  epsilon?: number | undefined
  weightDecay?: number | undefined
  maxGradNorm?: number | undefined
  decayAll?: boolean | undefined
}

export interface NativeSaveOptions {
  dtype: string
  maxShardBytes?: number | undefined
}

export interface NativeTokenBytes {
  bytes: Uint8Array
  offsets: Float64Array
}

export interface NativeMemoryPlanOptions {
  trainingTokens?: number | undefined
  contexts?: number | undefined
  contextTokens?: number | undefined
  rollouts?: number | undefined
  newTokens?: number | undefined
  maxSequences?: number | undefined
  keepActivations?: boolean | undefined
}

type Progress = NativeProgress | undefined

/**
 * What native/node/calls.cpp exports. Fields left out take the core's defaults. Every function copies its arguments
 * before it returns; the promise settles when the call has run on the engine's thread. A failure is an Error with one
 * of the core's codes in `code`. `id` names a call for `abort` and must not be under way already.
 */
export interface NativeEngine {
  createHandle(): EngineHandle
  open(
    handle: EngineHandle,
    id: number,
    progress: Progress,
    directory: string,
    options: NativeEngineOptions,
  ): Promise<NativeFacts>
  create(
    handle: EngineHandle,
    id: number,
    progress: Progress,
    config: string,
    initialisation: NativeInitialisation,
    options: NativeEngineOptions,
  ): Promise<NativeFacts>
  score(
    handle: EngineHandle,
    id: number,
    progress: Progress,
    forest: NativeForest,
    options: NativeScoreOptions,
  ): Promise<NativeScoreResult>
  sample(
    handle: EngineHandle,
    id: number,
    progress: Progress,
    forest: NativeForest,
    options: NativeSampleOptions,
  ): Promise<SampleResult>
  accumulate(
    handle: EngineHandle,
    id: number,
    progress: Progress,
    forest: NativeForest,
    terms: NativeLossTerm[],
    options: NativeAccumulateOptions,
  ): Promise<AccumulateResult>
  step(handle: EngineHandle, id: number, progress: Progress, options: NativeStepOptions): Promise<StepResult>
  zeroGradients(handle: EngineHandle, id: number, progress: Progress): Promise<void>
  read(handle: EngineHandle, id: number, progress: Progress, name: string, kind: TensorKind): Promise<Float32Array>
  write(handle: EngineHandle, id: number, progress: Progress, name: string, values: Float32Array): Promise<void>
  keepReference(handle: EngineHandle, id: number, progress: Progress): Promise<void>
  updateAverage(handle: EngineHandle, id: number, progress: Progress, tau: number): Promise<void>
  setTokenBytes(handle: EngineHandle, id: number, progress: Progress, table: NativeTokenBytes): Promise<void>
  save(
    handle: EngineHandle,
    id: number,
    progress: Progress,
    directory: string,
    options: NativeSaveOptions,
  ): Promise<void>
  saveTrainingState(handle: EngineHandle, id: number, progress: Progress, directory: string): Promise<void>
  loadTrainingState(handle: EngineHandle, id: number, progress: Progress, directory: string): Promise<void>
  memoryPlan(
    handle: EngineHandle,
    id: number,
    progress: Progress,
    options: NativeMemoryPlanOptions,
  ): Promise<MemoryItem[]>
  abort(handle: EngineHandle, id: number): void
  dispose(handle: EngineHandle): Promise<void>
}
