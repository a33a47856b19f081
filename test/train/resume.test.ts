import { spawn } from 'node:child_process'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, expect, test } from 'vitest'
import { PhiloxStream } from '../../lib/corpus/philox.js'
import type { Engine } from '../../lib/engine/engine.js'
import { TokenForest } from '../../lib/engine/token-forest.js'
import { informationGainReward } from '../../lib/reward/log-prob.js'
import { prefixMatchReward } from '../../lib/reward/prefix-match.js'
import { readTrainerState } from '../../lib/train/checkpoint.js'
import { Trainer } from '../../lib/train/trainer.js'
import type { TrainerOptions } from '../../lib/train/types.js'
import { tinyOptions, tinyRpt, weightsOf } from './tiny-run.js'

const folders: string[] = []
const engines: Engine[] = []
afterEach(async () => {
  for (const engine of engines.splice(0)) await engine.dispose()
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
})

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'foretoken-train-'))
  folders.push(folder)
  return folder
}

async function newTrainer(options: Partial<TrainerOptions>) {
  const complete = await tinyOptions(options)
  engines.push(complete.engine)
  return { trainer: new Trainer(complete), engine: complete.engine }
}

async function drain(trainer: Trainer): Promise<void> {
  for await (const _ of trainer);
}

interface Line {
  step: number | 'end'
}

/** Runs the process and gives its lines; kills it some milliseconds after a line, as a power failure would. */
async function process(folder: string, method: string, kill?: { afterLine: number; milliseconds: number }) {
  const hooks = new URL('../../scripts/typescript.mjs', import.meta.url).href
  const script = new URL('interrupted-run.ts', import.meta.url).pathname
  const child = spawn(globalThis.process.execPath, ['--import', hooks, script, folder, method])
  const lines: Line[] = []
  let errors = ''
  child.stderr.on('data', (data) => {
    errors += String(data)
  })
  createInterface({ input: child.stdout }).on('line', (line) => {
    // A line that the kill cut off is not one.
    try {
      lines.push(JSON.parse(line) as Line)
    } catch {
      return
    }
    if (lines.length === kill?.afterLine) setTimeout(() => child.kill('SIGKILL'), kill.milliseconds)
  })
  const signal = await new Promise<string | null>((resolve) => child.on('close', (_, name) => resolve(name)))
  return { lines, signal, errors }
}

test.each(['rpt', 'sft', 'ntp'])(
  '%s: a run killed at random moments gives the numbers and bits of an uninterrupted one',
  async (method) => {
    const { lines: expected, errors } = await process(await newFolder(), method)
    expect(errors).toBe('')
    expect(expected.map(({ step }) => step)).toEqual([...Array.from({ length: 16 }, (_, i) => i + 1), 'end'])

    const folder = await newFolder()
    const random = new PhiloxStream(Date.now(), 99, 0)
    const byStep = new Map<Line['step'], Line>()
    let killed = 0
    for (let attempt = 0; attempt < 30 && !byStep.has('end'); ++attempt) {
      const kill = killed < 2 ? { afterLine: 1 + random.below(6), milliseconds: random.below(15) } : undefined
      const { lines, signal, errors } = await process(folder, method, kill)
      expect(errors).toBe('')
      if (signal === 'SIGKILL') ++killed
      // A step that is done again gives the same again.
      for (const line of lines) {
        if (byStep.has(line.step)) expect(line).toEqual(byStep.get(line.step))
        byStep.set(line.step, line)
      }
    }
    expect(killed).toBeGreaterThan(0)
    expect([...byStep.values()]).toEqual(expected)
    expect((await readdir(folder)).filter((name) => !/^step-\d+$/.test(name))).toEqual([])
  },
  // Each run is a process that starts from TypeScript: slow on a busy machine.
  300_000,
)

test('the newest checkpoints and the best are kept', async () => {
  const folder = await newFolder()
  const rewards: number[] = []
  const { trainer } = await newTrainer({
    steps: 7,
    checkpoint: { directory: folder, every: 1, keepLast: 2, keepBest: { metric: 'reward' } },
  })
  for await (const step of trainer) rewards.push(step.reward!)
  const best = rewards.indexOf(Math.max(...rewards)) + 1
  const kept = [...new Set([best, 6, 7])].sort((a, b) => a - b)
  expect((await readdir(folder)).sort()).toEqual(kept.map((step) => `step-${step}`))
  expect(await readTrainerState(join(folder, 'step-7'))).toMatchObject({
    step: 7,
    best: { step: best, metric: 'reward', value: rewards[best - 1] },
  })
})

test('an abort writes a checkpoint, and going on from it ends with the same weights', async () => {
  const whole = await newTrainer({ steps: 6 })
  await drain(whole.trainer)

  const folder = await newFolder()
  const controller = new AbortController()
  const first = await newTrainer({ steps: 6, checkpoint: { directory: folder }, signal: controller.signal })
  for await (const { step } of first.trainer) if (step === 4) controller.abort()
  expect(await readdir(folder)).toEqual(['step-4'])

  const second = await newTrainer({ steps: 6 })
  await second.trainer.restore(join(folder, 'step-4'))
  expect(second.trainer.step).toBe(4)
  await drain(second.trainer)
  expect(await weightsOf(second.engine)).toEqual(await weightsOf(whole.engine))
})

test('a restored engine can stop at texts, in a loop of one own too', async () => {
  const folder = await newFolder()
  const { trainer } = await newTrainer({ steps: 1, checkpoint: { directory: folder } })
  await drain(trainer)
  const restored = await newTrainer({ steps: 2 })
  await restored.trainer.restore(join(folder, 'step-1'))
  const forest = new TokenForest()
  const from = [forest.add(null, [1, 2, 3])]
  const texts = [...'etaoinshrdlu 0123456789']
  const { rollouts } = await restored.engine.sample(forest, { from, n: 8, maxTokens: 200, seed: 1, stop: { texts } })
  expect(rollouts.map(({ stop }) => stop)).toContain('text')
})

test('what goes on with a new need of reference or average weights gets them from the restored ones', async () => {
  const folder = await newFolder()
  const { trainer } = await newTrainer({ steps: 1, checkpoint: { directory: folder } })
  await drain(trainer)
  for (const baseline of ['reference', 'average'] as const) {
    const { trainer, engine } = await newTrainer({ steps: 2, reward: informationGainReward({ baseline }) })
    await trainer.restore(join(folder, 'step-1'), { ignoreChanges: true })
    const { name } = engine.parameters()[0]!
    expect(await engine.read(name, baseline)).toEqual(await engine.read(name))
    expect(await trainer.next()).toMatchObject({ step: 2 })
  }
})

test('what a crash left behind is cleared away, and a checkpoint of the same step replaced', async () => {
  const folder = await newFolder()
  const { trainer } = await newTrainer({ steps: 2, checkpoint: { directory: folder } })
  await trainer.next()
  await trainer.saveCheckpoint()
  await writeFile(join(folder, 'step-1', 'mark'), '')
  await (await import('node:fs/promises')).mkdir(join(folder, 'step-9.partial', 'training'), { recursive: true })
  await trainer.saveCheckpoint()
  expect(await readdir(folder)).toEqual(['step-1'])
  expect(await readdir(join(folder, 'step-1'))).not.toContain('mark')
})

test('a run with other settings or another seed is refused, naming what changed, unless that is accepted', async () => {
  const folder = await newFolder()
  const { trainer } = await newTrainer({ steps: 1, checkpoint: { directory: folder } })
  await drain(trainer)
  const checkpoint = join(folder, 'step-1')

  const other = await newTrainer({ steps: 2, seed: 8, method: tinyRpt({ rolloutsPerContext: 2 }) })
  await expect(other.trainer.restore(checkpoint)).rejects.toMatchObject({
    code: 'DATA_CHANGED',
    message: expect.stringMatching(/seed: 7 → 8; method\.settings\.rolloutsPerContext: 4 → 2/),
  })
  const judged = await newTrainer({ steps: 2, reward: prefixMatchReward })
  await expect(judged.trainer.restore(checkpoint)).rejects.toMatchObject({
    code: 'DATA_CHANGED',
    message: expect.stringContaining('reward: "even-first" → "prefix-match"'),
  })
  await other.trainer.restore(checkpoint, { ignoreChanges: true })
  expect(other.trainer.step).toBe(1)
  await expect(other.trainer.restore(folder)).rejects.toMatchObject({ code: 'IO' })
})
