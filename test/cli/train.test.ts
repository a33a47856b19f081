import { appendFile, cp, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readPage } from '../docs/pages.js'
import { textsOf } from '../run/read-html.js'
import { foretoken, startForetoken } from './foretoken.js'
import { comparableMetrics, makeTinyWorld, readLines, type TinyWorld } from './tiny-world.js'

let world: TinyWorld
beforeAll(async () => {
  world = await makeTinyWorld()
})
afterAll(() => world.remove())

describe('foretoken train', () => {
  it('runs a config and leaves a complete run directory', async () => {
    const { status, stdout, stderr } = await foretoken(['train', 'run.yaml', '--json'], world.folder)
    expect(stderr).toContain('done: 8 steps')
    expect(stderr).toMatch(
      /^step 4\/8 · reward 0\.\d+ · accuracy [\d.]+ % · length \d+ · [\d.k]+ tokens\/s · .+ a step · .+ left$/m,
    )
    expect(status).toBe(0)
    const result = JSON.parse(stdout)
    expect(result).toMatchObject({ step: 8, finished: true, checkpoint: world.path('run', 'checkpoints', 'step-8') })
    expect((await readdir(world.path('run'))).sort()).toEqual([
      ...['checkpoints', 'config.yaml', 'evaluation.jsonl', 'manifest.json', 'metrics.jsonl', 'report.html'],
      'samples.jsonl',
    ])

    const metrics = await readLines(world.path('run', 'metrics.jsonl'))
    expect(metrics.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
    for (const line of metrics) expect(Object.values(line).every(Number.isFinite), JSON.stringify(line)).toBe(true)
    expect(Object.keys(metrics[1]!)).toEqual(
      expect.arrayContaining(['reward', 'reward_std', 'frac_reward_zero_std', 'grad_norm', 'entropy', 'num_tokens']),
    )
    const evaluated = metrics.filter((line) => 'eval/easy/reasoning' in line).map(({ step }) => step)
    expect(evaluated).toEqual([0, 3, 6, 8])
    expect(metrics.filter(({ grad_norm }) => (grad_norm as number) > 0)).toHaveLength(8)

    const manifest = JSON.parse(await readFile(world.path('run', 'manifest.json'), 'utf8'))
    expect(manifest).toMatchObject({ format: 1, seed: 0, dtype: 'float32', sessions: [{ fromStep: 0, changes: [] }] })
    expect(manifest.corpus.files).toEqual([
      { name: 'corpus.jsonl', bytes: (await stat(world.path('corpus.jsonl'))).size, digest: expect.any(String) },
    ])
  })

  it('keeps the newest checkpoints and the best, each a model folder with its tokenizer', async () => {
    const steps = (await readdir(world.path('run', 'checkpoints'))).map((name) => Number(name.split('-')[1]))
    expect(steps).toEqual(expect.arrayContaining([8]))
    expect(steps.length).toBeLessThanOrEqual(3)
    const files = await readdir(world.path('run', 'checkpoints', 'step-8'))
    expect(files).toEqual(
      expect.arrayContaining(['config.json', 'model.safetensors', 'tokenizer.json', 'trainer.json']),
    )
  })

  it('writes a report of the run with its numbers and answers', async () => {
    const html = await readFile(world.path('run', 'report.html'), 'utf8')
    const metrics = await readLines(world.path('run', 'metrics.jsonl'))
    const json = /<script type="application\/json" id="charts">(.*?)<\/script>/s.exec(html)![1]!
    const charts: { title: string; series: { label: string; x: number[]; y: number[] }[] }[] = JSON.parse(json)
    const chart = (title: string) => charts.find((one) => one.title === title)!
    expect(chart('Reward').series[0]!.y).toEqual(metrics.slice(1).map(({ reward }) => reward))
    const reasoning = chart('Held-out accuracy by split').series.find(({ label }) => label === 'easy, reasoning')!
    expect(reasoning.x).toEqual([0, 3, 6, 8])
    for (const title of ['Entropy', 'Thought length', 'Loss', 'Gradient norm', 'Throughput']) {
      expect(chart(title).series[0]!.x, title).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    }
    expect(textsOf(html, 'h2')).toEqual([
      'Held-out accuracy',
      'The same questions before and after',
      'Answers of training step 8',
    ])
    const samples = await readLines(world.path('run', 'samples.jsonl'))
    const first = samples.find(({ kind, step }) => kind === 'evaluation' && step === 0)!
    expect(textsOf(html, 'td')).toContain(first.truth)
    expect(chart('Thought length').series[0]!.y).toEqual(
      metrics.slice(1).map((step) => step['completions/mean_thought_length']),
    )
  })

  it('stops at a bad record with its file and line, or leaves it out and says how many', async () => {
    const good = await readFile(world.path('corpus.jsonl'), 'utf8')
    await writeFile(world.path('spoilt.jsonl'), `{"title": "no text"}\n{"text": \n{"text": ["a"]}\n${good}`)
    const args = ['train', 'run.yaml', '--corpus.sources', 'spoilt.jsonl', '--output', 'spoilt', '--steps', '1']
    const stopped = await foretoken([...args, '--evaluation.enabled', 'false'], world.folder)
    expect(stopped.status).toBe(1)
    expect(stopped.stderr).toMatch(/error INVALID_DATA: .*spoilt\.jsonl:1: .*onBadRecord: skip/)
    const flags = ['--evaluation.enabled', 'false', '--corpus.on-bad-record', 'skip']
    const { status, stderr } = await foretoken([...args, ...flags], world.folder)
    expect(status, stderr).toBe(0)
    expect(stderr).toContain('left out of the corpus: 3 records (json 1, field 2)\n')
    const [metrics] = await readLines(world.path('spoilt', 'metrics.jsonl'))
    expect(metrics).toMatchObject({ 'corpus/skipped/json': 1, 'corpus/skipped/field': 2 })
    expect(await readFile(world.path('spoilt', 'report.html'), 'utf8')).toContain('Left out of the corpus: 3 records')
  })

  it('gives metrics that the guide explains', async () => {
    const metrics = [
      ...(await readLines(world.path('run', 'metrics.jsonl'))),
      ...(await readLines(world.path('spoilt', 'metrics.jsonl'))),
    ]
    const named = /^(completions\/|rpt\/|reward|entropy|eval\/easy\/|corpus\/)/
    const names = [...new Set(metrics.flatMap(Object.keys))].filter((name) => named.test(name))
    const guide = readPage('docs/rpt-guide.md').code.map(({ text }) => text)
    // The easy split stands for all; reasons of what is left out have their last word; `_stderr` is explained once.
    const short = (name: string) =>
      name.replace(/\/(medium|hard)$/, '/easy').replace(/^corpus\/skipped\/(?!json)|.*(?=_stderr)/, '')
    expect(names.length).toBeGreaterThan(15)
    expect(names.filter((name) => !guide.includes(short(name)))).toEqual([])
  })

  it('refuses to write into a run that is there, unless told to replace it', async () => {
    const refused = await foretoken(['train', 'run.yaml'], world.folder)
    expect(refused.status).toBe(1)
    expect(refused.stderr).toContain('already holds a run; go on with it (foretoken train --resume run)')
    const replaced = await foretoken(['train', 'run.yaml', '--overwrite', '--steps', '1'], world.folder)
    expect(replaced.status).toBe(0)
    expect(await readLines(world.path('run', 'metrics.jsonl'))).toHaveLength(2)
  })

  it('is the same to the bit when it is run again', async () => {
    for (const output of ['twice-a', 'twice-b']) {
      const { status } = await foretoken(['train', 'run.yaml', '--output', output, '--steps', '2'], world.folder)
      expect(status).toBe(0)
    }
    const [a, b] = await Promise.all(
      ['twice-a', 'twice-b'].map((run) => comparableMetrics(world.path(run, 'metrics.jsonl'))),
    )
    expect(a).toEqual(b)
  })

  it('ends before the first step with the cause where data or model are missing', async () => {
    const missing = await foretoken(
      ['train', 'run.yaml', '--output', 'x', '--corpus.sources', 'nowhere.txt'],
      world.folder,
    )
    expect(missing.status).toBe(1)
    expect(missing.stderr).toMatch(/^foretoken: error IO: .*nowhere\.txt does not exist\n$/)
    const model = await foretoken(['train', 'run.yaml', '--output', 'x', '--model.path', 'nothing'], world.folder)
    expect(model.status).toBe(1)
    expect(model.stderr).toMatch(/^foretoken: error IO: .*nothing/)
    expect(await stat(world.path('x')).catch(() => undefined)).toBeUndefined()
  })

  it('that ends before the first result leaves the folder as it was', async () => {
    await writeFile(world.path('broken.mjs'), 'export default 7\n')
    const flags = ['--rpt.reward', 'broken.mjs', '--evaluation.enabled', 'false']
    const alone = await foretoken(['train', 'run.yaml', '--output', 'y', ...flags], world.folder)
    expect(alone.stderr).toContain('broken.mjs')
    expect(alone.status).toBe(1)
    expect(await stat(world.path('y')).catch(() => undefined)).toBeUndefined()

    await mkdir(world.path('mine'))
    await writeFile(world.path('mine', 'notes.txt'), 'keep me')
    await writeFile(world.path('mine', 'config.yaml'), await readFile(world.path('run.yaml')))
    for (const resume of [[], ['--resume']]) {
      const args = ['train', 'mine/config.yaml', '--output', 'mine', ...flags, ...resume]
      expect((await foretoken(args, world.folder)).status).toBe(1)
      expect((await readdir(world.path('mine'))).sort()).toEqual(['config.yaml', 'notes.txt'])
    }
  })

  it('keeps the difficulties that it judged for the next try, unless the text or the judge is another', async () => {
    const judged = (...flags: string[]) => {
      const all = ['--evaluation.enabled', 'false', '--difficulty.proxy', 'model', '--steps', '1', ...flags]
      return foretoken(['train', 'run.yaml', '--output', 'judged', ...all], world.folder)
    }
    const failed = await judged('--rpt.reward', 'broken.mjs')
    expect(failed.stderr).toContain('judging difficulty with model')
    expect(await readdir(world.path('judged'))).toEqual(['difficulty.index'])
    const other = await judged('--rpt.reward', 'broken.mjs', '--corpus.sources', 'traces.jsonl')
    expect(other.stderr).toContain('judging difficulty with model')
    const again = await judged('--corpus.sources', 'traces.jsonl')
    expect(again.status, again.stderr).toBe(0)
    expect(again.stderr).not.toContain('judging difficulty')
  })
})

describe('a run that is interrupted', () => {
  const files = ['config.json', 'model.safetensors']

  async function expectEqualRuns(interrupted: string): Promise<void> {
    expect(await comparableMetrics(world.path(interrupted, 'metrics.jsonl'))).toEqual(
      await comparableMetrics(world.path('whole', 'metrics.jsonl')),
    )
    expect(await readLines(world.path(interrupted, 'samples.jsonl'))).toEqual(
      await readLines(world.path('whole', 'samples.jsonl')),
    )
    for (const file of files) {
      const [one, other] = await Promise.all(
        ['whole', interrupted].map((run) => readFile(world.path(run, 'checkpoints', 'step-8', file))),
      )
      expect(one!.equals(other!), file).toBe(true)
    }
  }

  async function stepsOf(run: string): Promise<number> {
    const lines = await readLines(world.path(run, 'metrics.jsonl')).catch(() => [])
    return Number(lines.at(-1)?.step ?? -1)
  }

  /** Waits until a run has logged a step. */
  async function untilStep(run: string, step: number, ended: () => boolean): Promise<void> {
    while ((await stepsOf(run)) < step && !ended()) await setTimeout(10)
  }

  beforeAll(async () => {
    const { status, stderr } = await foretoken(['train', 'run.yaml', '--output', 'whole'], world.folder)
    expect(status, stderr).toBe(0)
    // From here on answers are judged slowly, so that a signal finds the run at work.
    process.env.REWARD_DELAY = '150'
  })
  afterAll(() => {
    delete process.env.REWARD_DELAY
  })

  it('by Ctrl-C finishes its step, writes a checkpoint, says how to go on, and goes on to the same bits', async () => {
    const { child, outcome } = startForetoken(['train', 'run.yaml', '--output', 'stopped'], world.folder)
    await untilStep('stopped', 3, () => child.exitCode !== null)
    child.kill('SIGINT')
    const { status, stderr } = await outcome
    expect(status).toBe(130)
    const [, step] = /stopped after step (\d+); resume with: foretoken train --resume stopped\n/.exec(stderr) ?? []
    expect(await stepsOf('stopped')).toBe(Number(step))
    expect(await readdir(world.path('stopped', 'checkpoints'))).toContain(`step-${step}`)

    const resumed = await foretoken(['train', '--resume', 'stopped'], world.folder)
    expect(resumed.stderr).toContain(`resumed at step ${step}`)
    expect(resumed.status).toBe(0)
    await expectEqualRuns('stopped')
  })

  it('by kill -9, again and again, goes on to the same bits', async () => {
    let args = ['train', 'run.yaml', '--output', 'killed']
    for (const step of [2, 4, 5, 7]) {
      const { child, outcome } = startForetoken(args, world.folder)
      await untilStep('killed', step, () => child.exitCode !== null)
      await setTimeout(step * 17)
      child.kill('SIGKILL')
      await outcome
      args = ['train', '--resume', 'killed']
    }
    const { status, stderr } = await foretoken(args, world.folder)
    expect(status, stderr).toBe(0)
    await expectEqualRuns('killed')
    const manifest = JSON.parse(await readFile(world.path('killed', 'manifest.json'), 'utf8'))
    expect(manifest.sessions.length).toBeGreaterThan(1)
  })

  it('is left alone by every other process until it ends', async () => {
    const { child, outcome } = startForetoken(['train', 'run.yaml', '--output', 'locked'], world.folder)
    await untilStep('locked', 2, () => child.exitCode !== null)
    // It must not end before the others have tried, however slowly they start.
    child.kill('SIGSTOP')
    try {
      for (const args of [
        ['train', '--resume', 'locked'],
        ['train', 'run.yaml', '--output', 'locked', '--overwrite'],
      ]) {
        const { status, stderr } = await foretoken(args, world.folder)
        expect(status).toBe(1)
        expect(stderr).toMatch(
          new RegExp(`^foretoken: error LOCKED: process ${child.pid} has been writing into .*locked`),
        )
      }
    } finally {
      child.kill('SIGCONT')
    }
    const { status, stderr } = await outcome
    expect(status, stderr).toBe(0)
    await expectEqualRuns('locked')
    expect((await readdir(world.path('locked'))).filter((name) => name.includes('lock'))).toEqual([])
  })

  it('by a second Ctrl-C ends at once', async () => {
    process.env.REWARD_DELAY = '60000'
    const { child, outcome } = startForetoken(
      ['train', 'run.yaml', '--output', 'hurried', '--evaluation.enabled', 'false'],
      world.folder,
    )
    let seen = ''
    child.stderr!.on('data', (data: Buffer) => {
      seen += data.toString()
    })
    while (!seen.includes('memory:') && child.exitCode === null) await setTimeout(10)
    // The run now waits for the judgement of its first answers, for a minute.
    await setTimeout(300)
    child.kill('SIGINT')
    while (!seen.includes('once more ends at once') && child.exitCode === null) await setTimeout(10)
    child.kill('SIGINT')
    const { status } = await outcome
    expect(status).toBe(130)
    expect(await readdir(world.path('hurried', 'checkpoints')).catch(() => [])).toEqual([])
    process.env.REWARD_DELAY = '150'
  })
})

describe('a run whose numbers explode', () => {
  it('stops before weights are touched, names the step, and can be resumed from its checkpoint', async () => {
    const flags = '--checkpoint.every 1 --evaluation.enabled false --rpt.updates-per-batch 1'.split(' ')
    const args = ['train', 'run.yaml', '--output', 'exploded', ...flags]
    const { status, stderr } = await foretoken([...args, '--optimizer.learning-rate', '1e30'], world.folder)
    expect(status).toBe(1)
    expect(stderr).toMatch(/foretoken: error NON_FINITE: step \d+: .*\.weight/)
    const steps = (await readLines(world.path('exploded', 'metrics.jsonl'))).map(({ step }) => step)
    expect(steps.length).toBeGreaterThan(0)
    expect(stderr).toContain(`NON_FINITE: step ${steps.length + 1}: `)
    expect(stderr).toContain(`the last checkpoint is of step ${steps.length}: foretoken train --resume exploded\n`)
    const gentle = ['--optimizer.learning-rate', '0', '--allow-changes', '--steps', String(steps.length + 1)]
    const again = await foretoken(['train', '--resume', 'exploded', ...gentle], world.folder)
    expect(again.stderr).toContain(`resumed at step ${steps.length}`)
  })
})

describe('a run to be resumed', () => {
  beforeAll(async () => {
    const { status } = await foretoken(['train', 'run.yaml', '--output', 'half', '--steps', '4'], world.folder)
    expect(status).toBe(0)
  })

  it('may be given more steps while the learning rate is constant', async () => {
    const done = await foretoken(['train', '--resume', 'half'], world.folder)
    expect(done.status).toBe(1)
    expect(done.stderr).toContain('is complete: it has done 4 of 4 steps; give it more with --steps')
    const { status } = await foretoken(['train', '--resume', 'half', '--steps', '5'], world.folder)
    expect(status).toBe(0)
    expect((await readLines(world.path('half', 'metrics.jsonl'))).map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5])
  })

  it('is told how it may be given more steps where the learning rate falls, and may', async () => {
    const falling = ['--schedule.kind', 'linear', '--evaluation.enabled', 'false', '--output', 'falling']
    expect((await foretoken(['train', 'run.yaml', '--steps', '2', ...falling], world.folder)).status).toBe(0)
    const done = await foretoken(['train', '--resume', 'falling'], world.folder)
    expect(done.status).toBe(1)
    expect(done.stderr).toContain('it has done 2 of 2 steps; give it more with --steps and --allow-changes')
    expect(done.stderr).toContain('(schedule.kind linear)')
    const more = ['train', '--resume', 'falling', '--steps', '4']
    const { status, stderr } = await foretoken(more, world.folder)
    expect(status).toBe(1)
    expect(stderr).toContain('  config: steps was 2 and is 4\n')
    expect((await foretoken([...more, '--allow-changes'], world.folder)).status).toBe(0)
    const rates = (await readLines(world.path('falling', 'metrics.jsonl'))).map((line) => line.learning_rate as number)
    expect(rates).toHaveLength(4)
    expect(rates[0]).toBeGreaterThan(rates[1]!)
    expect(rates[2]).toBeGreaterThan(rates[1]!)
    expect(rates[2]).toBeGreaterThan(rates[3]!)
  })

  it('is refused where the config has changed, with what has', async () => {
    const changed = ['train', '--resume', 'half', '--steps', '6', '--optimizer.learning-rate', '5e-4']
    const { status, stderr } = await foretoken([...changed, '--rpt.rollouts-per-context', '2'], world.folder)
    expect(status).toBe(1)
    expect(stderr).toContain('cannot go on bit for bit')
    expect(stderr).toContain('  config: optimizer.learningRate was 0.001 and is 0.0005\n')
    expect(stderr).toContain('  config: rpt.rolloutsPerContext was 4 and is 2\n')
    expect(stderr).toContain('--allow-changes')
  })

  it('is refused where the data have changed, with the file, unless that is allowed', async () => {
    for (const run of ['half', 'half-changed']) {
      if (run === 'half-changed') await cp(world.path('half'), world.path('half-changed'), { recursive: true })
    }
    await writeFile(world.path('grown.jsonl'), await readFile(world.path('corpus.jsonl')))
    await appendFile(world.path('corpus.jsonl'), `${JSON.stringify({ text: 'one more document' })}\n`)
    const before = (await stat(world.path('grown.jsonl'))).size
    const after = (await stat(world.path('corpus.jsonl'))).size
    const args = ['train', '--resume', 'half-changed', '--steps', '6']
    const { status, stderr } = await foretoken(args, world.folder)
    expect(status).toBe(1)
    expect(stderr).toContain(`  data: corpus.jsonl has changed (${before} bytes then, ${after} now)\n`)

    const allowed = await foretoken([...args, '--allow-changes'], world.folder)
    expect(allowed.stderr).toContain('resumed at step 5')
    expect(allowed.status).toBe(0)
    const manifest = JSON.parse(await readFile(world.path('half-changed', 'manifest.json'), 'utf8'))
    expect(manifest.sessions.at(-1).changes).toContainEqual(expect.stringContaining('corpus.jsonl has changed'))
    await writeFile(world.path('corpus.jsonl'), await readFile(world.path('grown.jsonl')))
  })

  it('begins at the beginning where it has no checkpoint, so that a job may always say --resume', async () => {
    const args = ['train', 'run.yaml', '--resume', '--output', 'fresh', '--steps', '1', '--evaluation.enabled', 'false']
    await mkdir(world.path('fresh'))
    await writeFile(world.path('fresh', 'mine.txt'), 'kept')
    const { status, stderr } = await foretoken(args, world.folder)
    expect(stderr).toContain('fresh has no checkpoint to go on from: starting at the beginning')
    expect(status).toBe(0)
    expect(await readFile(world.path('fresh', 'mine.txt'), 'utf8')).toBe('kept')
    const again = await foretoken([...args, '--steps', '2'], world.folder)
    expect(again.stderr).toContain('resumed at step 1')
  })

  it('must exist', async () => {
    const { status, stderr } = await foretoken(['train', '--resume', 'nowhere'], world.folder)
    expect(status).toBe(1)
    expect(stderr).toContain('nowhere holds no run')
  })
})
