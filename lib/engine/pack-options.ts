import type {
  NativeAccumulateOptions,
  NativeEngineOptions,
  NativeInitialisation,
  NativeMemoryPlanOptions,
  NativeSampleOptions,
  NativeSaveOptions,
  NativeScoreOptions,
  NativeStepOptions,
  NativeTokenBytes,
} from './native-engine.js'
import type {
  AccumulateOptions,
  CreateOptions,
  EngineOptions,
  MemoryPlanOptions,
  SampleOptions,
  SaveOptions,
  ScoreOptions,
  StepOptions,
  StopOptions,
  TokenBytes,
} from './options.js'
import {
  checkBoolean,
  checkChoice,
  checkControl,
  checkInteger,
  checkNumber,
  checkOptions,
  checkString,
  checkTokenIds,
  invalidArgument,
  isArrayLike,
  refuse,
  toSeed,
} from './validate.js'

// One function per options object: refuses what is wrong, by name, and gives the addon its form of the rest.
// Undefined stays undefined: the core has the defaults.

const controlNames = ['signal', 'onProgress']
const engineNames = [
  'device',
  'dtype',
  'allowTf32',
  'stateDtype',
  'threads',
  'batchTokens',
  'cacheTokens',
  'memoryLimit',
  'recompute',
]
const weightsKinds = ['current', 'reference', 'average']

export function packEngineOptions(options: EngineOptions, furtherNames: readonly string[] = []): NativeEngineOptions {
  checkOptions('options', options, [...engineNames, ...furtherNames])
  const { device, dtype, allowTf32, stateDtype, threads, batchTokens, cacheTokens, memoryLimit, recompute } = options
  checkString('options.device', device)
  checkChoice('options.dtype', dtype, ['float32', 'bfloat16'])
  checkBoolean('options.allowTf32', allowTf32)
  checkChoice('options.stateDtype', stateDtype, ['float32', 'bfloat16'])
  checkInteger('options.threads', threads, 1, 4096)
  checkInteger('options.batchTokens', batchTokens, 1)
  checkInteger('options.cacheTokens', cacheTokens, 1, Number.MAX_SAFE_INTEGER)
  checkInteger('options.memoryLimit', memoryLimit, 1, Number.MAX_SAFE_INTEGER)
  checkBoolean('options.recompute', recompute)
  return {
    device,
    dtype,
    allowTf32,
    bfloat16State: stateDtype === 'bfloat16',
    threads,
    batchTokens,
    cacheTokens,
    memoryLimit,
    recompute,
  }
}

export function packInitialisation({ seed, initialisation = {} }: CreateOptions): NativeInitialisation {
  const name = 'options.initialisation'
  checkOptions(name, initialisation, ['embedding', 'head', 'projection', 'outputProjection', 'scaleByFanIn'])
  const { embedding, head, projection, outputProjection, scaleByFanIn } = initialisation
  for (const [key, value] of Object.entries({ embedding, head, projection, outputProjection }))
    checkNumber(`${name}.${key}`, value, { lowest: 0 })
  checkBoolean(`${name}.scaleByFanIn`, scaleByFanIn)
  return { seed: toSeed('options.seed', seed), embedding, head, projection, outputProjection, scaleByFanIn }
}

export function packScoreOptions(options: ScoreOptions): NativeScoreOptions {
  checkOptions('options', options, ['temperature', 'weights', 'topEntropy', 'argmax', 'logits', ...controlNames])
  const { temperature, weights, topEntropy, argmax, logits } = options
  checkNumber('options.temperature', temperature, { above: 0 })
  checkChoice('options.weights', weights, weightsKinds)
  checkInteger('options.topEntropy', topEntropy, 1)
  checkBoolean('options.argmax', argmax)
  checkControl('options', options)
  return { temperature, weights, topEntropy, argmax, logits: indices('options.logits', logits) }
}

const sampleNames = [
  'from',
  'n',
  'maxTokens',
  'minTokens',
  'temperature',
  'topK',
  'topP',
  'minP',
  'seed',
  'rolloutIds',
  'stop',
  'bannedTokens',
  'maxSequences',
  'weights',
  'keepActivations',
]

export function packSampleOptions(options: SampleOptions, knowsTokenBytes: boolean): NativeSampleOptions {
  checkOptions('options', options, [...sampleNames, ...controlNames])
  const { n, maxTokens, minTokens, temperature, topK, topP, minP, seed, maxSequences, weights, keepActivations } =
    options
  const from = checkTokenIds('options.from', options.from)
  checkInteger('options.n', n, 1)
  checkInteger('options.maxTokens', maxTokens, 1)
  checkInteger('options.minTokens', minTokens, 0)
  checkNumber('options.temperature', temperature, { lowest: 0 })
  checkInteger('options.topK', topK, 0)
  checkNumber('options.topP', topP, { above: 0, highest: 1 })
  checkNumber('options.minP', minP, { lowest: 0, highest: 1 })
  checkInteger('options.maxSequences', maxSequences, 1)
  checkChoice('options.weights', weights, weightsKinds)
  checkBoolean('options.keepActivations', keepActivations)
  checkControl('options', options)
  const rolloutIds = indices('options.rolloutIds', options.rolloutIds)
  return {
    from,
    n,
    maxTokens,
    minTokens,
    temperature,
    topK,
    topP,
    minP,
    seed: toSeed('options.seed', seed),
    rolloutIds: rolloutIds && Uint32Array.from(rolloutIds),
    bannedTokens: indices('options.bannedTokens', options.bannedTokens),
    ...packStop(options.stop, knowsTokenBytes),
    maxSequences,
    weights,
    keepActivations,
  }
}

function packStop(
  stop: StopOptions | undefined,
  knowsTokenBytes: boolean,
): { stopTokens?: Int32Array | undefined; stopTexts?: Uint8Array[] } {
  if (stop === undefined) return {}
  checkOptions('options.stop', stop, ['tokens', 'texts'])
  const stopTokens = indices('options.stop.tokens', stop.tokens)
  if (stop.texts === undefined) return { stopTokens }
  if (!Array.isArray(stop.texts)) throw refuse('options.stop.texts', 'an array of strings or Uint8Array', stop.texts)
  const stopTexts = stop.texts.map((text: unknown, index) => {
    const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text
    if (bytes instanceof Uint8Array && bytes.length > 0) return bytes
    throw refuse(`options.stop.texts[${index}]`, 'a string or Uint8Array that is not empty', text)
  })
  if (stopTexts.length > 0 && !knowsTokenBytes)
    throw invalidArgument(
      'options.stop.texts needs to know what the tokens stand for: call engine.setTokenBytes with the table of the ' +
        'tokenizer first, or stop by options.stop.tokens',
    )
  return { stopTokens, stopTexts }
}

export function packAccumulateOptions(options: AccumulateOptions): NativeAccumulateOptions {
  checkOptions('options', options, ['temperature', 'recompute', 'batchTokens', ...controlNames])
  const { temperature, recompute, batchTokens } = options
  checkNumber('options.temperature', temperature, { above: 0 })
  checkBoolean('options.recompute', recompute)
  checkInteger('options.batchTokens', batchTokens, 1)
  checkControl('options', options)
  return { temperature, recompute, batchTokens }
}

const stepNames = ['learningRate', 'betas', 'epsilon', 'weightDecay', 'maxGradNorm', 'decayAll']

export function packStepOptions(options: StepOptions): NativeStepOptions {
  checkOptions('options', options, stepNames)
  const { learningRate, epsilon, weightDecay, maxGradNorm, decayAll } = options
  if (learningRate === undefined) throw invalidArgument('options.learningRate is missing')
  checkNumber('options.learningRate', learningRate, { lowest: 0 })
  const betas: readonly unknown[] = options.betas ?? []
  if (options.betas !== undefined && (!Array.isArray(betas) || betas.length !== 2))
    throw refuse('options.betas', 'a pair [beta1, beta2]', betas)
  const [beta1, beta2] = betas as [number?, number?]
  checkNumber('options.betas[0]', beta1, { lowest: 0, highest: 1 })
  checkNumber('options.betas[1]', beta2, { lowest: 0, highest: 1 })
  checkNumber('options.epsilon', epsilon, { above: 0 })
  checkNumber('options.weightDecay', weightDecay, { lowest: 0 })
  checkNumber('options.maxGradNorm', maxGradNorm, { lowest: 0 })
  checkBoolean('options.decayAll', decayAll)
  return { learningRate, beta1, beta2, epsilon, weightDecay, maxGradNorm, decayAll }
}

export function packSaveOptions(options: SaveOptions, stored: string): NativeSaveOptions {
  checkOptions('options', options, ['dtype', 'maxShardBytes', 'signal'])
  const { dtype = stored, maxShardBytes } = options
  checkChoice('options.dtype', dtype, ['float32', 'bfloat16', 'float16'])
  checkInteger('options.maxShardBytes', maxShardBytes, 1, Number.MAX_SAFE_INTEGER)
  checkControl('options', options)
  return { dtype, maxShardBytes }
}

const memoryPlanNames = [
  'trainingTokens',
  'contexts',
  'contextTokens',
  'rollouts',
  'newTokens',
  'maxSequences',
  'keepActivations',
]

export function packMemoryPlanOptions(options: MemoryPlanOptions): NativeMemoryPlanOptions {
  checkOptions('options', options, memoryPlanNames)
  const { trainingTokens, contexts, contextTokens, rollouts, newTokens, maxSequences, keepActivations } = options
  checkInteger('options.trainingTokens', trainingTokens, 0, Number.MAX_SAFE_INTEGER)
  checkInteger('options.contexts', contexts, 0)
  checkInteger('options.contextTokens', contextTokens, 0)
  checkInteger('options.rollouts', rollouts, 1)
  checkInteger('options.newTokens', newTokens, 0)
  checkInteger('options.maxSequences', maxSequences, 1)
  checkBoolean('options.keepActivations', keepActivations)
  return { trainingTokens, contexts, contextTokens, rollouts, newTokens, maxSequences, keepActivations }
}

export function packTokenBytes(table: TokenBytes): NativeTokenBytes {
  checkOptions('table', table, ['bytes', 'offsets'])
  const { bytes, offsets } = table
  if (!(bytes instanceof Uint8Array)) throw refuse('table.bytes', 'a Uint8Array', bytes)
  if (!isArrayLike(offsets)) throw refuse('table.offsets', 'an array of whole numbers', offsets)
  const packed = Float64Array.from(offsets as ArrayLike<number>)
  const ordered = packed.every((offset, i) => Number.isInteger(offset) && offset >= (i === 0 ? 0 : packed[i - 1]!))
  if (packed.length < 2 || !ordered || packed[0] !== 0 || packed.at(-1) !== bytes.length)
    throw invalidArgument(
      `table.offsets must rise from 0 to table.bytes.length (${bytes.length}), with one entry more than there are tokens`,
    )
  return { bytes, offsets: packed }
}

function indices(name: string, values: ArrayLike<number> | undefined): Int32Array | undefined {
  return values === undefined ? undefined : checkTokenIds(name, values)
}
