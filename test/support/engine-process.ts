// A process of its own for test/engine/engine-processes.test.ts: `node … engine-process.ts <scenario>`. Whatever a
// scenario prints to stdout is its result; anything on stderr is a failure.

import { readdirSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import { type Engine, TokenForest } from '../../lib/index.js'
import { tinyEngine, tokenIds } from './tiny-model.js'

function forestOf(sequences: number): TokenForest {
  const forest = new TokenForest()
  for (let i = 0; i < sequences; ++i) forest.add(null, tokenIds(500, i))
  return forest
}

/** A call that is still running long after `begun` has been called, with others that wait behind it. */
async function busyEngine(begun: (engine: Engine) => void): Promise<void> {
  const engine = await tinyEngine({ batchTokens: 64, threads: 2 })
  let reported = false
  const onProgress = () => {
    if (!reported) begun(engine)
    reported = true
  }
  const ignore = () => {}
  engine.accumulate(forestOf(2000), [{ kind: 'cross-entropy' }], { onProgress }).catch(ignore)
  engine.step({ learningRate: 1e-3 }).catch(ignore)
  engine.score(forestOf(1)).catch(ignore)
}

function threadCount(): number {
  return readdirSync('/proc/self/task').length
}

async function terminateWorkers(): Promise<void> {
  for (let i = 0; i < 2; ++i) {
    const worker = new Worker(new URL(import.meta.url))
    await new Promise((resolve) => worker.once('message', resolve))
    const code = await worker.terminate()
    if (code !== 1) throw new Error(`terminate answered ${code}`)
  }
  // The addon is as good as before in the thread that lives on.
  const engine = await tinyEngine()
  const { logprobs } = await engine.score(forestOf(1))
  await engine.dispose()
  console.log(`terminated 2, then scored ${logprobs.length}`)
}

async function forgetEngines(): Promise<void> {
  const collect = globalThis.gc
  if (collect === undefined) throw new Error('needs --expose-gc')
  await (await tinyEngine()).dispose()
  const before = threadCount()
  for (let i = 0; i < 6; ++i) await (await tinyEngine({ threads: 1 })).score(forestOf(1))
  const during = threadCount()
  let after = during
  for (let i = 0; i < 50 && after > before; ++i) {
    collect()
    await setTimeout(10)
    after = threadCount()
  }
  console.log(during > before, after <= before)
}

const scenarios: Record<string, () => Promise<void>> = {
  'exit in the middle of a call': () => busyEngine(() => process.exit(7)),
  'an uncaught error in the middle of a call': () =>
    busyEngine(() => {
      process.once('uncaughtException', ({ message }) => {
        console.log(message)
        process.exit(3)
      })
      queueMicrotask(() => {
        throw new Error('nobody catches this')
      })
    }),
  'the end of the program with an idle engine': async () => {
    const engine = await tinyEngine()
    await engine.score(forestOf(1))
    console.log('the program ends here')
  },
  'the end of the program with a call under way': async () => {
    const engine = await tinyEngine()
    engine.score(forestOf(20)).then(({ logprobs }) => console.log(`scored ${logprobs.length}`))
  },
  'workers terminated in the middle of a call': terminateWorkers,
  'engines that are forgotten': forgetEngines,
}

if (isMainThread) await scenarios[process.argv[2]!]!()
else await busyEngine(() => parentPort!.postMessage('busy'))
