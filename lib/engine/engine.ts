import { type ChosenDevice, chooseDevice } from './choose-device.js'
import { type LossTerm, packLossTerms } from './loss-terms.js'
import type { ModelConfig } from './model-config.js'
import { NativeCalls } from './native-calls.js'
import type { NativeFacts } from './native-engine.js'
import type {
  AccumulateOptions,
  CreateOptions,
  EngineOptions,
  MemoryPlanOptions,
  SampleOptions,
  SaveOptions,
  ScoreOptions,
  StepOptions,
  TokenBytes,
} from './options.js'
import {
  packAccumulateOptions,
  packEngineOptions,
  packInitialisation,
  packMemoryPlanOptions,
  packSampleOptions,
  packSaveOptions,
  packScoreOptions,
  packStepOptions,
  packTokenBytes,
} from './pack-options.js'
import type {
  AccumulateResult,
  MemoryItem,
  Parameter,
  SampleResult,
  ScoreResult,
  StepResult,
  TensorKind,
} from './results.js'
import { TokenForest } from './token-forest.js'
import { checkChoice, checkFloats, checkNumber, checkString, isObject, refuse } from './validate.js'

/**
 * One model on one device.
 *
 * Every call runs on the engine's own native thread, in the order of calling, and never blocks the event loop. Its
 * arguments are copied before it returns its promise. An idle engine does not keep the process alive.
 */
export class Engine implements AsyncDisposable {
  /** The architecture, with defaults filled in. */
  readonly config: ModelConfig
  /** `'cpu'`, `'reference'` or `'cuda:0'`. */
  readonly device: string
  /** Such as `'avx512-bf16, 2 threads'`. */
  readonly deviceDescription: string
  /** Why `'auto'` became the CPU although foretoken's CUDA library is here; null where there is nothing to say. */
  readonly deviceNote: string | null
  /** What activations and products are computed in. */
  readonly dtype: 'float32' | 'bfloat16'
  readonly #calls: NativeCalls
  readonly #parameters: readonly Parameter[]
  #knowsTokenBytes = false

  private constructor(calls: NativeCalls, facts: NativeFacts, dtype: 'float32' | 'bfloat16', note: string | null) {
    this.#calls = calls
    this.#parameters = facts.parameters
    this.config = facts.config
    this.device = facts.device
    this.deviceDescription = facts.deviceDescription
    this.deviceNote = note
    this.dtype = dtype
  }

  /**
   * Loads a checkpoint in Hugging Face layout: config.json and safetensors.
   *
   * @throws ForetokenError `IO`, `INVALID_CONFIG`, `UNSUPPORTED_CONFIG`, `INVALID_CHECKPOINT`, `OUT_OF_MEMORY`,
   * `DEVICE_UNAVAILABLE` or `INVALID_ARGUMENT`.
   */
  static async open(directory: string, options: EngineOptions = {}): Promise<Engine> {
    if (typeof directory !== 'string' || directory === '') throw refuse('directory', 'a path', directory)
    const packed = packEngineOptions(options)
    return Engine.#start(options, (calls, device) =>
      calls.run({}, (native, handle, id, progress) =>
        native.open(handle, id, progress, directory, { ...packed, ...device }),
      ),
    )
  }

  /**
   * Makes a model with random weights. `config` is what would stand in its config.json, as an object or as text.
   *
   * The default initialisation is that of transformers: normal with `initializer_range`, ones for norms, zero biases.
   */
  static async create(config: object | string, options: CreateOptions = {}): Promise<Engine> {
    if (typeof config !== 'string' && !isObject(config)) throw refuse('config', 'an object or JSON text', config)
    const text = typeof config === 'string' ? config : JSON.stringify(config)
    const initialisation = packInitialisation(options)
    const packed = packEngineOptions(options, ['seed', 'initialisation'])
    return Engine.#start(options, (calls, device) =>
      calls.run({}, (native, handle, id, progress) =>
        native.create(handle, id, progress, text, initialisation, { ...packed, ...device }),
      ),
    )
  }

  static async #start(
    options: EngineOptions,
    load: (calls: NativeCalls, device: Omit<ChosenDevice, 'note'>) => Promise<NativeFacts>,
  ): Promise<Engine> {
    const { dtype = 'float32' } = options
    const { note = null, ...device } = await chooseDevice(options.device)
    const calls = new NativeCalls()
    try {
      return new Engine(calls, await load(calls, device), dtype, note)
    } catch (error) {
      await calls.dispose()
      throw error
    }
  }

  /**
   * The log-prob of every token given its prefix, in nats, and what else was asked for: arrays of N entries in the order
   * of adding. Changes nothing.
   *
   * @throws ForetokenError `INVALID_ARGUMENT` for token ids outside the vocabulary, a path longer than
   * `config.maxPositionEmbeddings`, or weights that were not kept; `OUT_OF_MEMORY`; `NON_FINITE`; `DISPOSED`.
   */
  async score(forest: TokenForest, options: ScoreOptions = {}): Promise<ScoreResult> {
    const packed = packScoreOptions(options)
    const packedForest = packForest(forest)
    const result = await this.#calls.run(options, (native, handle, id, progress) =>
      native.score(handle, id, progress, packedForest, packed),
    )
    const { logprobs, entropy } = result
    return {
      logprobs,
      entropy,
      ...(options.topEntropy === undefined ? {} : { topEntropy: result.topEntropy }),
      ...(options.argmax === true ? { argmax: result.argmax } : {}),
      ...(options.logits === undefined ? {} : { logits: result.logits }),
    }
  }

  /**
   * Continues segments: n rollouts for each entry of `from`, in order. The forest itself is not changed:
   * `forest.add(rollout.segment, rollout.tokens)` does that.
   *
   * @throws ForetokenError as `score`; `OUT_OF_MEMORY` where the key/value store cannot hold one context and one rollout.
   */
  async sample(forest: TokenForest, options: SampleOptions): Promise<SampleResult> {
    const packed = packSampleOptions(options, this.#knowsTokenBytes)
    const packedForest = packForest(forest)
    return this.#calls.run(options, (native, handle, id, progress) =>
      native.sample(handle, id, progress, packedForest, packed),
    )
  }

  /**
   * Adds the gradients of the terms' sum to those already there. The loss is minimised. Aborted or failed, it may have
   * added a part: `zeroGradients` drops it.
   *
   * @throws ForetokenError as `score`; `INVALID_ARGUMENT` naming the term and field; `NON_FINITE` naming the token.
   */
  async accumulate(
    forest: TokenForest,
    terms: readonly LossTerm[],
    options: AccumulateOptions = {},
  ): Promise<AccumulateResult> {
    const packed = packAccumulateOptions(options)
    const packedForest = packForest(forest)
    const packedTerms = packLossTerms(terms, forest)
    return this.#calls.run(options, (native, handle, id, progress) =>
      native.accumulate(handle, id, progress, packedForest, packedTerms, packed),
    )
  }

  /**
   * Clips the gradients, applies AdamW and empties them.
   *
   * @throws ForetokenError `NON_FINITE` naming the tensor when a gradient is NaN or infinite; the weights stay.
   */
  async step(options: StepOptions): Promise<StepResult> {
    const packed = packStepOptions(options)
    return this.#calls.run({}, (native, handle, id, progress) => native.step(handle, id, progress, packed))
  }

  /** Forgets what has been accumulated. */
  async zeroGradients(): Promise<void> {
    return this.#calls.run({}, (native, handle, id, progress) => native.zeroGradients(handle, id, progress))
  }

  /** Name, shape and dtype of every parameter, in the order of the model. */
  parameters(): readonly Parameter[] {
    return this.#parameters
  }

  /**
   * A tensor of a parameter, row-major in its `shape`, as float32. A copy.
   *
   * @throws ForetokenError `INVALID_ARGUMENT` for an unknown name, or a kind that is not there.
   */
  async read(name: string, kind: TensorKind = 'weight'): Promise<Float32Array> {
    checkName(name)
    checkChoice('kind', kind, ['weight', 'gradient', 'reference', 'average'])
    return this.#calls.run({}, (native, handle, id, progress) => native.read(handle, id, progress, name, kind))
  }

  /**
   * Replaces a parameter's current weights by as many values, row-major.
   *
   * @throws ForetokenError `INVALID_ARGUMENT` for an unknown name or another number of values; `NON_FINITE`.
   */
  async write(name: string, values: ArrayLike<number>): Promise<void> {
    checkName(name)
    const floats = checkFloats('values', values)
    return this.#calls.run({}, (native, handle, id, progress) => native.write(handle, id, progress, name, floats))
  }

  /** Freezes a copy of the current weights, for `weights: 'reference'`. @throws ForetokenError `OUT_OF_MEMORY`. */
  async keepReference(): Promise<void> {
    return this.#calls.run({}, (native, handle, id, progress) => native.keepReference(handle, id, progress))
  }

  /** average = tau · average + (1 − tau) · current, for `weights: 'average'`; the first call copies. */
  async updateAverage(tau: number): Promise<void> {
    if (tau === undefined) throw refuse('tau', 'a number of at least 0 and of at most 1', tau)
    checkNumber('tau', tau, { lowest: 0, highest: 1 })
    return this.#calls.run({}, (native, handle, id, progress) => native.updateAverage(handle, id, progress, tau))
  }

  /** Tells the engine what bytes its tokens stand for, such as `tokenizer.bytes`, so that `sample` can stop at texts. */
  async setTokenBytes(table: TokenBytes): Promise<void> {
    const packed = packTokenBytes(table)
    const done = this.#calls.run({}, (native, handle, id, progress) =>
      native.setTokenBytes(handle, id, progress, packed),
    )
    this.#knowsTokenBytes = true
    return done
  }

  /**
   * Writes the model in Hugging Face layout, with the tokenizer files of the folder it was opened from; the folder appears
   * whole or not at all. It replaces an earlier model there, and nothing else.
   *
   * @throws ForetokenError `IO`; `NON_FINITE` for weights that the dtype cannot hold.
   */
  async save(directory: string, options: SaveOptions = {}): Promise<void> {
    checkDirectory(directory)
    const packed = packSaveOptions(options, this.config.dtype)
    return this.#calls.run(options, (native, handle, id, progress) =>
      native.save(handle, id, progress, directory, packed),
    )
  }

  /** Writes all that training depends on: a run that loads it continues with the same bits. */
  async saveTrainingState(directory: string): Promise<void> {
    checkDirectory(directory)
    return this.#calls.run({}, (native, handle, id, progress) =>
      native.saveTrainingState(handle, id, progress, directory),
    )
  }

  /**
   * Takes what `saveTrainingState` wrote: weights, optimizer, and reference and average where there were any. Throws
   * `INVALID_CHECKPOINT` for the state of another model.
   */
  async loadTrainingState(directory: string): Promise<void> {
    checkDirectory(directory)
    return this.#calls.run({}, (native, handle, id, progress) =>
      native.loadTrainingState(handle, id, progress, directory),
    )
  }

  /** The bytes by purpose that the described work will hold at its peak; by default training at `batchTokens`. */
  async memoryPlan(options: MemoryPlanOptions = {}): Promise<MemoryItem[]> {
    const packed = packMemoryPlanOptions(options)
    return this.#calls.run({}, (native, handle, id, progress) => native.memoryPlan(handle, id, progress, packed))
  }

  /** Whether `dispose` was called. */
  get disposed(): boolean {
    return this.#calls.disposed
  }

  /**
   * Frees the engine: waiting calls fail with `DISPOSED`, the running one is stopped. Resolves when its memory is free
   * and its thread has ended; more calls do nothing.
   */
  dispose(): Promise<void> {
    return this.#calls.dispose()
  }

  /** `dispose`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose()
  }
}

function packForest(forest: TokenForest) {
  if (!(forest instanceof TokenForest)) throw refuse('forest', 'a TokenForest', forest)
  return forest.pack()
}

function checkName(name: unknown): void {
  if (name === undefined) throw refuse('name', "a parameter's name", name)
  checkString('name', name)
}

function checkDirectory(directory: unknown): void {
  if (typeof directory !== 'string' || directory === '') throw refuse('directory', 'a path', directory)
}
