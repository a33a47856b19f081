import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nativeBinding } from '../../lib/engine/native-binding.js'
import { Engine, TokenForest } from '../../lib/index.js'
import { tinyConfig, tinyEngine } from '../support/tiny-model.js'

let engine: Engine
const forest = new TokenForest()
forest.add(null, [1, 20, 30])
forest.add(0, [40, 50])

beforeAll(async () => {
  engine = await tinyEngine()
})
afterAll(() => engine.dispose())

/** The whole point is to pass what the types forbid. */
type Loose = (...args: unknown[]) => Promise<unknown>
const call =
  (method: keyof Engine, ...args: unknown[]) =>
  () =>
    (engine[method] as unknown as Loose).apply(engine, args)
const open =
  (...args: unknown[]) =>
  () =>
    (Engine.open as Loose)(...args)
const create =
  (...args: unknown[]) =>
  () =>
    (Engine.create as Loose)(...args)
const policy = (fields: object) =>
  call('accumulate', forest, [{ kind: 'policy', segments: [1], advantages: [1], ...fields }])

describe('wrong arguments are refused by name, with what they should be', () => {
  test.each<[string, () => Promise<unknown>, string | RegExp]>([
    ['open without a path', open(), 'directory must be a path, not undefined'],
    ['open with an option of another type', open('x', { threads: 'two' }), /options\.threads must be a whole number/],
    ['open with no threads', open('x', { threads: 0 }), /options\.threads must be .* from 1/],
    ['open with an unknown dtype', open('x', { dtype: 'fp16' }), /dtype must be 'float32' or 'bfloat16', not "fp16"/],
    [
      'open with a misspelt option',
      open('x', { batchToken: 8 }),
      'options has no "batchToken"; did you mean batchTokens?',
    ],
    ['create without a config', create(), /config must be an object or JSON text, not undefined/],
    [
      'create with a bad seed',
      create(tinyConfig, { seed: -1 }),
      /options\.seed must be a whole number from 0 to 2\^64/,
    ],
    ['create with a fractional seed', create(tinyConfig, { seed: 1.5 }), /options\.seed must be .* not 1\.5/],
    ['create with a seed beyond 64 bits', create(tinyConfig, { seed: 1n << 64n }), /options\.seed/],
    [
      'create with a misspelt initialisation',
      create(tinyConfig, { initialisation: { embeddings: 1 } }),
      'options.initialisation has no "embeddings"; did you mean embedding?',
    ],
    ['score without a forest', call('score'), 'forest must be a TokenForest, not undefined'],
    ['score of an array', call('score', [1, 2]), 'forest must be a TokenForest, not an array of 2'],
    [
      'score at temperature 0',
      call('score', forest, { temperature: 0 }),
      /temperature must be a number above 0, not 0/,
    ],
    ['score at no temperature', call('score', forest, { temperature: Number.NaN }), /temperature must be .* not NaN/],
    [
      'score with unknown weights',
      call('score', forest, { weights: 'old' }),
      /weights must be 'current' or 'reference'/,
    ],
    [
      'score with a signal that is none',
      call('score', forest, { signal: {} }),
      /options\.signal must be an AbortSignal/,
    ],
    [
      'score with progress that is none',
      call('score', forest, { onProgress: 1 }),
      /onProgress must be a function, not 1/,
    ],
    ['score with an unknown option', call('score', forest, { foo: 1 }), /options has no "foo"; known are temperature/],
    ['score of logits beyond the forest', call('score', forest, { logits: [5] }), /5/],
    ['sample without options', call('sample', forest), 'options must be an object, not undefined'],
    [
      'sample from nothing',
      call('sample', forest, {}),
      /options\.from must be an array of whole numbers, not undefined/,
    ],
    ['sample from an empty list', call('sample', forest, { from: [] }), /from/],
    ['sample from a segment that is not there', call('sample', forest, { from: [2] }), /segment 2 does not exist/],
    ['sample with n = 0', call('sample', forest, { from: [1], n: 0 }), /options\.n must be a whole number from 1/],
    ['sample with topP = 0', call('sample', forest, { from: [1], topP: 0 }), /topP must be a number above 0 and of at/],
    [
      'sample with minP = 2',
      call('sample', forest, { from: [1], minP: 2 }),
      /minP must be a number of at least 0 and of/,
    ],
    ['sample with stop as a list', call('sample', forest, { from: [1], stop: [2] }), /options\.stop must be an object/],
    [
      'sample with an empty stop text',
      call('sample', forest, { from: [1], stop: { texts: [''] } }),
      /texts\[0\] must be/,
    ],
    [
      'sample with texts, bytes unknown',
      call('sample', forest, { from: [1], stop: { texts: ['a'] } }),
      /setTokenBytes/,
    ],
    ['sample beyond the last position', call('sample', forest, { from: [1], maxTokens: 2000 }), /position/],
    ['sample with a banned token outside', call('sample', forest, { from: [1], bannedTokens: [999] }), /token 999/],
    ['accumulate without terms', call('accumulate', forest), 'terms must be an array of loss terms, not undefined'],
    ['accumulate of no terms', call('accumulate', forest, []), /terms must not be empty/],
    [
      'a term without a kind',
      call('accumulate', forest, [{}]),
      "terms[0].kind must be 'cross-entropy' or 'policy', not undefined",
    ],
    [
      'cross-entropy with few weights',
      call('accumulate', forest, [{ kind: 'cross-entropy', weights: [1] }]),
      'terms[0].weights has 1 entries, but the forest has 5 tokens',
    ],
    ['policy without advantages', policy({ advantages: undefined }), /needs either advantages .* or tokenAdvantages/],
    ['policy with both', policy({ tokenAdvantages: new Float32Array(5) }), /needs either advantages/],
    [
      'policy with too many advantages',
      policy({ advantages: [1, 2] }),
      'terms[0].advantages has 2 entries for 1 segments',
    ],
    [
      'policy with an unknown segment',
      policy({ segments: [7] }),
      /segment 7 does not exist: the forest has 2 segments/,
    ],
    [
      'policy with arrays that do not fit',
      policy({ oldLogprobs: [[1]] }),
      'terms[0].oldLogprobs[0] has 1 entries, but segment 1 has 2 tokens',
    ],
    [
      'policy with an array too many',
      policy({
        oldLogprobs: [
          [1, 2],
          [1, 2],
        ],
      }),
      'terms[0].oldLogprobs has 2 arrays for 1 segments',
    ],
    ['policy with one clip', policy({ clip: 0.2 }), 'terms[0].clip must be a pair [low, high], not 0.2'],
    ['policy with a dual clip of 1', policy({ dualClip: 1 }), /dualClip must be a number above 1/],
    [
      'constant without its normaliser',
      policy({ aggregation: 'constant' }),
      /normaliser is needed by aggregation 'constant'/,
    ],
    ['kl without a reference', policy({ kl: { coefficient: 1 } }), /kl needs referenceLogprobs/],
    ['kl without a coefficient', policy({ kl: {} }), /kl\.coefficient is missing/],
    ['policy with a misspelt field', policy({ advantage: 1 }), 'terms[0] has no "advantage"; did you mean advantages?'],
    ['step without a learning rate', call('step', {}), 'options.learningRate is missing'],
    [
      'step with a negative one',
      call('step', { learningRate: -1 }),
      /learningRate must be a number of at least 0, not -1/,
    ],
    ['step with one beta', call('step', { learningRate: 1, betas: [0.9] }), /betas must be a pair/],
    [
      'step with a beta of 2',
      call('step', { learningRate: 1, betas: [0.9, 2] }),
      /betas\[1\] must be .* of at most 1, not 2/,
    ],
    ['step with lr', call('step', { lr: 1 }), /options has no "lr"/],
    ['step before any gradient', call('step', { learningRate: 1 }), /gradient/],
    ['read without a name', call('read'), /name must be/],
    ['read of a tensor that is not there', call('read', 'lm.weight'), /lm\.weight/],
    ['read of an unknown kind', call('read', 'lm_head.weight', 'grad'), /kind must be 'weight' or 'gradient'/],
    ['read of a reference that is not kept', call('read', 'lm_head.weight', 'reference'), /keepReference/],
    ['write of too few values', call('write', 'lm_head.weight', [1, 2]), /lm_head\.weight/],
    ['write of text', call('write', 'lm_head.weight', 'abc'), /values must be an array of numbers, not "abc"/],
    ['updateAverage without tau', call('updateAverage'), /tau must be/],
    ['updateAverage with tau = 2', call('updateAverage', 2), /tau must be .* not 2/],
    [
      'setTokenBytes with falling offsets',
      call('setTokenBytes', { bytes: new Uint8Array(2), offsets: [0, 2, 1] }),
      /offsets/,
    ],
    ['setTokenBytes without bytes', call('setTokenBytes', { offsets: [0, 1] }), /table\.bytes must be a Uint8Array/],
    ['save without a path', call('save'), 'directory must be a path, not undefined'],
    [
      'save as float64',
      call('save', '/tmp/x', { dtype: 'float64' }),
      /dtype must be 'float32' or 'bfloat16' or 'float16'/,
    ],
    [
      'a token outside the vocabulary',
      () => {
        const outside = new TokenForest()
        outside.add(null, [1, 211])
        return engine.score(outside)
      },
      /token 211 .* outside the vocabulary of 211/,
    ],
    ['an empty forest', () => engine.score(new TokenForest()), /forest is empty/],
  ])('%s', async (_, attempt, message) => {
    await expect(attempt()).rejects.toThrow(message)
    await expect(attempt()).rejects.toMatchObject({ name: 'ForetokenError', code: 'INVALID_ARGUMENT' })
  })

  test('and the engine still works', async () => {
    const { logprobs } = await engine.score(forest)
    expect(logprobs.length).toBe(5)
  })
})

describe('what is wrong with a model has its own code', () => {
  test.each<[string, () => Promise<unknown>, string, RegExp]>([
    ['a folder that is not there', () => Engine.open('/nowhere/at/all'), 'IO', /nowhere\/at\/all/],
    ['a config that is no JSON', () => Engine.create('{'), 'INVALID_CONFIG', /config/],
    ['an unknown architecture', () => Engine.create({ model_type: 'mamba' }), 'UNSUPPORTED_CONFIG', /mamba/],
    ['a device that is not there', () => tinyEngine({ device: 'tpu' }), 'INVALID_ARGUMENT', /tpu/],
    ['a model beyond the memory limit', () => tinyEngine({ memoryLimit: 1000 }), 'OUT_OF_MEMORY', /[0-9]/],
  ])('%s', async (_, attempt, code, message) => {
    const error = await attempt().catch((caught: unknown) => caught)
    expect(error).toMatchObject({ name: 'ForetokenError', code })
    expect((error as Error).message).toMatch(message)
  })
})

describe('the addon itself', () => {
  const native = nativeBinding()

  test.each<[string, unknown]>([
    ['undefined', undefined],
    ['a number', 7],
    ['a plain object', {}],
    ['an object that inherits from a handle', Object.create(native.createHandle())],
    ['a proxy of a handle', new Proxy(native.createHandle(), {})],
    ['an array', []],
    ['a function', () => 0],
  ])('refuses %s as an engine handle', (_, impostor) => {
    const handle = impostor as ReturnType<typeof native.createHandle>
    const expected = expect.objectContaining({
      code: 'INVALID_ARGUMENT',
      message: 'the first argument is not an engine handle',
    })
    expect(() => native.zeroGradients(handle, 0, undefined)).toThrow(expected)
    expect(() => native.abort(handle, 0)).toThrow(expected)
    expect(() => native.dispose(handle)).toThrow(expected)
  })

  test('refuses a forest whose arrays do not belong together', () => {
    const handle = native.createHandle()
    const tokens = Int32Array.of(1, 2, 3)
    const score = (parents: number[], lengths: number[]) => () =>
      native.score(
        handle,
        0,
        undefined,
        { tokens, parents: Int32Array.from(parents), lengths: Int32Array.from(lengths) },
        {},
      )
    const refused = expect.objectContaining({ code: 'INVALID_ARGUMENT' })
    expect(score([-1], [4])).toThrow(refused)
    expect(score([-1], [2])).toThrow(refused)
    expect(score([-1, 0], [3])).toThrow(refused)
    expect(score([-1, 0], [-1, 4])).toThrow(refused)
    expect(score([0], [3])).toThrow(refused)
    expect(score([-1, 2 ** 31 - 1], [2, 1])).toThrow(refused)
    return native.dispose(handle)
  })

  test('reads a typed array from where it begins, not from where its buffer does', async () => {
    const padded = Int32Array.of(99, 98, 1, 20, 30, 97)
    const whole = { parents: Int32Array.of(-1), lengths: Int32Array.of(3) }
    const handle = native.createHandle()
    await native.create(handle, 0, undefined, JSON.stringify(tinyConfig), { seed: 1n }, { threads: 1 })
    const offset = await native.score(handle, 1, undefined, { tokens: padded.subarray(2, 5), ...whole }, {})
    const plain = await native.score(handle, 2, undefined, { tokens: Int32Array.of(1, 20, 30), ...whole }, {})
    expect(offset.logprobs).toEqual(plain.logprobs)
    await native.dispose(handle)
  })
})
