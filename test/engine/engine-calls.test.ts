import { setImmediate } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Engine, ForetokenError, TokenForest } from '../../lib/index.js'
import { tinyEngine, tokenIds } from '../support/tiny-model.js'

let engine: Engine
beforeAll(async () => {
  engine = await tinyEngine({ batchTokens: 256 })
})
afterAll(() => engine.dispose())

function shortForest(): TokenForest {
  const forest = new TokenForest()
  forest.add(null, tokenIds(10, 1))
  return forest
}

/** Enough micro-batches that whoever aborts or counts comes in time; nothing here depends on how long it takes. */
function longForest(): TokenForest {
  const forest = new TokenForest()
  for (let i = 0; i < 150; ++i) forest.add(null, tokenIds(500, i))
  return forest
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => expect.fail('it should have been rejected'),
    (reason: unknown) => reason,
  )
}

describe('calls', () => {
  test('run one after another in the order of calling', async () => {
    const name = 'model.norm.weight'
    const { length } = await engine.read(name)
    const before = await engine.read(name)
    const order: number[] = []
    const calls = [2, 3, 4].flatMap((value, i) => [
      engine.write(name, new Float32Array(length).fill(value)).then(() => void order.push(2 * i)),
      engine.read(name).then((values) => {
        order.push(2 * i + 1)
        expect(new Set(values)).toEqual(new Set([value]))
      }),
    ])
    await Promise.all(calls)
    expect(order).toEqual([0, 1, 2, 3, 4, 5])
    await engine.write(name, before)
  })

  test('copy their arguments before they return', async () => {
    const forest = shortForest()
    const expected = await engine.score(forest)
    const scored = engine.score(forest)
    forest.add(0, [5, 6])
    expect((await scored).logprobs).toEqual(expected.logprobs)

    const name = 'model.norm.weight'
    const before = await engine.read(name)
    const values = before.slice()
    const written = engine.write(name, values)
    values.fill(7)
    await written
    expect(await engine.read(name)).toEqual(before)
  })

  test('leave the event loop free', async () => {
    let running = true
    let turns = 0
    const scored = engine.score(longForest()).finally(() => {
      running = false
    })
    while (running) {
      await setImmediate()
      ++turns
    }
    await scored
    // A call that held the loop would let it turn a few times at its beginning and its end.
    expect(turns).toBeGreaterThan(50)
  })

  test('of two engines run side by side and do not mix', async () => {
    const other = await tinyEngine({ seed: 2 })
    const forest = shortForest()
    const [one, two] = [await engine.score(forest), await other.score(forest)]
    expect(one.logprobs).not.toEqual(two.logprobs)
    let done = 0
    const long = engine.score(longForest()).then(() => ++done)
    expect((await other.score(forest)).logprobs).toEqual(two.logprobs)
    // The other engine did not wait for this one.
    expect(done).toBe(0)
    await Promise.all([long, other.dispose()])
    expect((await engine.score(forest)).logprobs).toEqual(one.logprobs)
  })
})

describe('progress', () => {
  test('rises to the total', async () => {
    const reports: [number, number][] = []
    const forest = longForest()
    await engine.score(forest, { onProgress: (done, total) => reports.push([done, total]) })
    expect(reports.length).toBeGreaterThan(0)
    // The last token of a sequence predicts nothing, and does not go through the network.
    const tokens = forest.length - forest.segmentCount
    expect(new Set(reports.map(([, total]) => total))).toEqual(new Set([tokens]))
    const done = reports.map(([value]) => value)
    expect(done).toEqual([...done].sort((a, b) => a - b))
    expect(done.at(-1)).toBe(tokens)
  })

  test('that throws ends the call with what it threw', async () => {
    const thrown = new RangeError('enough')
    let calls = 0
    const onProgress = () => {
      ++calls
      throw thrown
    }
    expect(await rejection(engine.score(longForest(), { onProgress }))).toBe(thrown)
    expect(calls).toBe(1)
    expect((await engine.score(shortForest())).logprobs.length).toBe(10)
  })
})

describe('an abort signal', () => {
  test('that has fired already rejects with its reason', async () => {
    const reason = new Error('too late')
    expect(await rejection(engine.score(shortForest(), { signal: AbortSignal.abort(reason) }))).toBe(reason)
  })

  test.each<[string, (options: { signal: AbortSignal; onProgress: () => void }) => Promise<unknown>]>([
    ['score', (options) => engine.score(longForest(), options)],
    ['accumulate', (options) => engine.accumulate(longForest(), [{ kind: 'cross-entropy' }], options)],
    ['sample', (options) => engine.sample(shortForest(), { from: [0], n: 64, maxTokens: 600, ...options })],
  ])('ends %s in the middle, and rejects with its reason', async (_, call) => {
    const controller = new AbortController()
    const reason = new Error('changed my mind')
    expect(await rejection(call({ signal: controller.signal, onProgress: () => controller.abort(reason) }))).toBe(
      reason,
    )
    await engine.zeroGradients()
  })

  test('rejects with an AbortError where no reason was given', async () => {
    const controller = new AbortController()
    const call = engine.score(longForest(), { signal: controller.signal, onProgress: () => controller.abort() })
    expect(await rejection(call)).toMatchObject({ name: 'AbortError' })
  })

  test('takes a waiting call out of the queue while another runs', async () => {
    const controllers = [new AbortController(), new AbortController()]
    const [running, waiting] = controllers.map(({ signal }) => engine.score(longForest(), { signal }))
    let ended = false
    const end = rejection(running!).finally(() => {
      ended = true
    })
    controllers[1]!.abort('not needed')
    expect(await rejection(waiting!)).toBe('not needed')
    expect(ended).toBe(false)
    controllers[0]!.abort('stop')
    expect(await end).toBe('stop')
  })

  test('that fires after the end changes nothing', async () => {
    const controller = new AbortController()
    const forest = shortForest()
    const { logprobs } = await engine.score(forest, { signal: controller.signal })
    controller.abort()
    expect((await engine.score(forest)).logprobs).toEqual(logprobs)
  })
})

describe('an error', () => {
  test('of the native core is a ForetokenError with a code and the stack of the call', async () => {
    async function whoAsksForIt() {
      return await engine.read('no.such.tensor')
    }
    const error = await rejection(whoAsksForIt())
    expect(error).toBeInstanceOf(ForetokenError)
    const { code, message, stack } = error as ForetokenError
    expect(code).toBe('INVALID_ARGUMENT')
    expect(message).toContain('no.such.tensor')
    expect(stack).toMatch(/^ForetokenError: .*no\.such\.tensor/)
    expect(stack).toContain('whoAsksForIt')
    expect(stack).toContain('engine-calls.test')
  })

  test('of one call leaves the others alone', async () => {
    const forest = shortForest()
    const [first, second, third] = await Promise.allSettled([
      engine.score(forest),
      engine.read('no.such.tensor'),
      engine.score(forest),
    ])
    expect(second.status).toBe('rejected')
    expect(third).toEqual(first)
  })
})

describe('dispose', () => {
  test('may be called any number of times, and says so', async () => {
    const own = await tinyEngine()
    expect(own.disposed).toBe(false)
    const first = own.dispose()
    expect(own.disposed).toBe(true)
    await Promise.all([first, own.dispose()])
    await own.dispose()
  })

  test('stops the running call and those that wait', async () => {
    const own = await tinyEngine({ batchTokens: 256 })
    const calls = [own.score(longForest()), own.score(shortForest()), own.step({ learningRate: 1 })].map(rejection)
    await own.dispose()
    for (const error of await Promise.all(calls)) expect(error).toMatchObject({ code: 'DISPOSED' })
  })

  test('in the middle of a call, from its own progress, ends it too', async () => {
    const own = await tinyEngine({ batchTokens: 256 })
    let disposal: Promise<void> | undefined
    const onProgress = () => {
      disposal ??= own.dispose()
    }
    expect(await rejection(own.score(longForest(), { onProgress }))).toMatchObject({ code: 'DISPOSED' })
    await disposal
  })

  test('makes every later call fail', async () => {
    const own = await tinyEngine()
    await own.dispose()
    const later = [own.score(shortForest()), own.read('lm_head.weight'), own.memoryPlan()]
    for (const call of later) expect(await rejection(call)).toMatchObject({ name: 'ForetokenError', code: 'DISPOSED' })
  })

  test('comes by itself at the end of an `await using` block', async () => {
    let kept: Engine
    {
      await using own = await tinyEngine()
      await own.score(shortForest())
      kept = own
    }
    expect(kept.disposed).toBe(true)
  })
})

describe('what an engine says of itself', () => {
  test('config, device, dtype and parameters', () => {
    expect(engine.config).toMatchObject({
      family: 'qwen3',
      vocabSize: 211,
      numLayers: 2,
      headDim: 16,
      eosTokenIds: [2],
    })
    expect(engine.device).toBe('cpu')
    expect(engine.deviceDescription).toContain('1 thread')
    expect(engine.dtype).toBe('float32')
    const head = engine.parameters().find(({ name }) => name === 'lm_head.weight')
    expect(head).toEqual({ name: 'lm_head.weight', shape: [211, 48], dtype: 'float32' })
  })

  test('a memory plan by purpose', async () => {
    const plan = await engine.memoryPlan()
    expect(plan.map(({ name }) => name)).toEqual(expect.arrayContaining(['weights', 'gradients', 'optimizer']))
    const elements = engine.parameters().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
    expect(plan.find(({ name }) => name === 'gradients')!.bytes).toBeGreaterThanOrEqual(4 * elements)
  })
})
