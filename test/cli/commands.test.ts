import { appendFile, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DifficultyIndex } from '../../lib/corpus/difficulty-index.js'
import { Engine } from '../../lib/engine/engine.js'
import { TokenForest } from '../../lib/engine/token-forest.js'
import { Tokenizer } from '../../lib/text/tokenizer.js'
import { foretoken } from './foretoken.js'
import { makeTinyWorld, readLines, type TinyWorld, tinyConfig } from './tiny-world.js'

let world: TinyWorld
beforeAll(async () => {
  world = await makeTinyWorld()
})
afterAll(() => world.remove())

async function json(args: readonly string[]) {
  const { status, stdout, stderr } = await foretoken([...args, '--json'], world.folder)
  expect(status, stderr).toBe(0)
  return JSON.parse(stdout)
}

describe('foretoken', () => {
  it('lists its commands, and each explains itself with an example', async () => {
    const { status, stdout } = await foretoken(['--help'], world.folder)
    expect(status).toBe(0)
    for (const command of ['train', 'pretrain', 'evaluate', 'filter', 'sample', 'score', 'export']) {
      expect(stdout).toMatch(new RegExp(`^ {2}${command} `, 'm'))
      const help = await foretoken([command, '--help'], world.folder)
      expect(help.status).toBe(0)
      expect(help.stdout).toMatch(new RegExp(`Examples?:\n {2}foretoken ${command} `))
    }
  })

  it('ends with status 2 for a command line that makes no sense, and says what to do', async () => {
    const usages: [string[], string][] = [
      [['trian'], 'Did you mean train?'],
      [['train'], 'a config is missing: foretoken train run.yaml, or at least --model.path and --corpus.sources'],
      [
        ['pretrain'],
        'a config is missing: foretoken pretrain run.yaml, or at least --model.create, --model.tokenizer and',
      ],
      [['train', 'text.txt'], 'text.txt is text, not a config; text is given with --corpus.sources text.txt'],
      [
        ['train', '--rpt.rollout', '4'],
        '--rpt.rollout is not a known option; did you mean --rpt.rollouts-per-context?',
      ],
      [['train', 'a.yaml', 'b.yaml'], 'one argument is expected, not 2'],
      [['train', 'run.yaml', '--optimizer.lr', '1'], '--optimizer.lr is not a known option'],
      [['sample'], "missing required argument 'model'"],
      [['score', 'model'], 'a text is missing'],
      [['sample', 'model', 'x', '--n', 'many'], 'It must be a whole number.'],
      [['evaluate'], 'a model is missing'],
    ]
    for (const [args, message] of usages) {
      const { status, stdout, stderr } = await foretoken(args, world.folder)
      expect(stderr).toContain(message)
      expect(stderr).not.toContain('    at ')
      expect(status, args.join(' ')).toBe(2)
      expect(stdout).toBe('')
    }
  })

  it('ends with status 1 and one message with a code for everything else that is wrong', async () => {
    await writeFile(world.path('wrong.yaml'), 'model: { path: model }\noptimizer:\n  lerningRate: 1\n')
    const failures: [string[], string][] = [
      [
        ['train', 'wrong.yaml'],
        'INVALID_CONFIG: wrong.yaml:3:3: optimizer.lerningRate is not a known key; did you mean',
      ],
      [['train', 'none.yaml'], 'IO: the config none.yaml does not exist'],
      [['score', 'corpus.jsonl', 'x'], 'IO: corpus.jsonl is no model: it has no config.json'],
      [['sample', 'model', 'x', '--device', 'abacus'], 'INVALID_ARGUMENT: '],
    ]
    for (const [args, message] of failures) {
      const { status, stderr } = await foretoken(args, world.folder)
      expect(stderr).toContain(`foretoken: error ${message}`)
      expect(stderr.trimEnd().split('\n')).toHaveLength(1)
      expect(status).toBe(1)
    }
  })

  it('lists every key of the config', async () => {
    const { stdout } = await foretoken(['train', '--keys'], world.folder)
    expect(stdout).toContain('  --optimizer.learning-rate  <number>, default 0.000001\n      peak learning rate\n')
  })
})

describe('foretoken score', () => {
  it('gives the log-probs of the engine', async () => {
    const text = '3: aa b\n'
    const result = await json(['score', 'model', text])
    const tokenizer = await Tokenizer.open(world.path('model'))
    await using engine = await Engine.open(world.path('model'))
    const forest = new TokenForest()
    forest.add(null, tokenizer.encode(text))
    const { logprobs } = await engine.score(forest)
    const expected = Array.from(logprobs, (value) => (Number.isNaN(value) ? null : value))
    expect(result.perTokens.map(({ logprob }: { logprob: number | null }) => logprob)).toEqual(expected)
    expect(result).toMatchObject({ tokens: 8, bytes: 8 })
    await writeFile(world.path('text.txt'), text)
    expect(await json(['score', 'model', '--file', 'text.txt'])).toEqual(result)
  })
})

describe('foretoken sample', () => {
  it('gives the answers of the engine, the same ones for the same seed', async () => {
    const args = ['sample', 'model', '3: aa', '--n', '2', '--max-tokens', '7', '--seed', '5']
    const { answers } = await json(args)
    const tokenizer = await Tokenizer.open(world.path('model'))
    await using engine = await Engine.open(world.path('model'))
    const forest = new TokenForest()
    const from = [forest.add(null, tokenizer.encode('3: aa'))]
    const stop = { tokens: tokenizer.stopIds }
    const { rollouts } = await engine.sample(forest, { from, n: 2, maxTokens: 7, seed: 5, temperature: 0.8, stop })
    expect(answers.map(({ tokens }: { tokens: number }) => tokens)).toEqual(rollouts.map(({ tokens }) => tokens.length))
    expect(answers.map(({ text }: { text: string }) => text)).toEqual(
      rollouts.map(({ tokens }) => tokenizer.decode(tokens, { special: false, continues: true })),
    )
  })

  it('asks for the next token with the prompt of rpt', async () => {
    const args = ['sample', 'model', '3: aa', '--reason', '--template', '{context}|', '--max-tokens', '3']
    const { answers } = await json(args)
    expect(answers).toHaveLength(1)
    expect(answers[0].prediction).toBeNull()
    const { stdout } = await foretoken(args, world.folder)
    expect(stdout).toBe(`${answers[0].text}\n→ no box\n`)
  })
})

describe('foretoken filter', () => {
  it('writes the entropy of every position, and training takes it', async () => {
    const result = await json(['filter', 'model', 'corpus.jsonl', '--output', 'hard.index'])
    expect(result.documents).toBe(60)
    expect(result.count).toBe(result.tokens - result.documents)
    expect(result.histogram.counts.reduce((sum: number, count: number) => sum + count, 0)).toBe(result.count)
    const index = await DifficultyIndex.open(world.path('hard.index'))
    expect(index.size).toBe(60)
    await index.close()

    const train = ['train', 'run.yaml', '--steps', '1', '--evaluation.enabled', 'false']
    const { status, stderr } = await foretoken(
      [...train, '--output', 'indexed', '--difficulty.index', 'hard.index'],
      world.folder,
    )
    expect(status, stderr).toBe(0)
    const [metrics] = await readLines(world.path('indexed', 'metrics.jsonl'))
    expect(metrics!['tokens/scored']).toBe(0)
  })

  it('is done by a run itself where another model judges', async () => {
    const train = ['train', 'run.yaml', '--steps', '1', '--evaluation.enabled', 'false', '--output', 'judged']
    const { status, stderr } = await foretoken([...train, '--difficulty.proxy', 'model'], world.folder)
    expect(status, stderr).toBe(0)
    expect(stderr).toContain('judging difficulty with model')
    expect(await readdir(world.path('judged'))).toContain('difficulty.index')
  })

  it('shows a histogram to people', async () => {
    const { stdout } = await foretoken(['filter', 'model', 'corpus.jsonl', '-o', 'x.index'], world.folder)
    expect(stdout).toContain('60 documents (0 left out)')
    expect(stdout).toMatch(/^hard +1\.5 +\d+\.\d %$/m)
    expect(stdout).toMatch(/█/)
    await appendFile(world.path('spoilt.jsonl'), '{"text": "a b c"}\n{"text":\n')
    const spoilt = ['filter', 'model', 'spoilt.jsonl', '-o', 'x.index']
    expect((await foretoken(spoilt, world.folder)).stderr).toContain('spoilt.jsonl:2: ')
    const { stdout: skipping } = await foretoken([...spoilt, '--skip-bad'], world.folder)
    expect(skipping).toContain('1 documents (1 left out)')
  })
})

describe('foretoken evaluate', () => {
  it('of a checkpoint gives the numbers that its run gave', async () => {
    const { status, stderr } = await foretoken(['train', 'run.yaml', '--steps', '3'], world.folder)
    expect(status, stderr).toBe(0)
    const last = (await readLines(world.path('run', 'metrics.jsonl'))).at(-1)!
    const result = await json(['evaluate', 'run'])
    const evaluated = Object.entries(last).filter(([name]) => name.startsWith('eval/'))
    expect(evaluated.length).toBeGreaterThan(5)
    expect(result).toMatchObject(Object.fromEntries(evaluated))
  })

  it('gives them where texts of the corpus come more than once, too', async () => {
    const texts = (await readLines(world.path('corpus.jsonl'))).map(({ text }) => text as string)
    const again = [...texts, ...texts.toReversed()].map((text) => `${JSON.stringify({ text })}\n`)
    await writeFile(world.path('again.jsonl'), again.join(''))
    const held = ['--evaluation.sources', 'again.jsonl', '--evaluation.documents', '100']
    const flags = [...held, '--evaluation.temperature', '1', '--output', 'again']
    const { status, stderr } = await foretoken(['train', 'run.yaml', '--steps', '1', ...flags], world.folder)
    expect(status, stderr).toBe(0)
    const last = (await readLines(world.path('again', 'metrics.jsonl'))).at(-1)!
    const evaluated = Object.entries(last).filter(([name]) => name.startsWith('eval/'))
    expect(await json(['evaluate', 'again'])).toMatchObject(Object.fromEntries(evaluated))
    // The model is seldom right, so the numbers say little: the answers that are shown must be the same, too.
    const { stdout } = await foretoken(['evaluate', 'again'], world.folder)
    const samples = (await readLines(world.path('again', 'samples.jsonl'))) as Record<
      'kind' | 'context' | 'thought',
      string
    >[]
    const shown = samples.filter(({ kind }) => kind === 'evaluation').slice(-8)
    const thoughts = stdout.split('\n').filter((line) => line.startsWith('  "'))
    expect(thoughts).toEqual(shown.map(({ thought }) => `  ${JSON.stringify(thought.slice(0, 300))}`))
    for (const { context } of shown) expect(stdout).toContain(`…${JSON.stringify(context.slice(-60))} → `)
  })

  it('asks any model the same questions', async () => {
    const first = (await readLines(world.path('run', 'metrics.jsonl')))[0]!
    const config = ['--config', 'run.yaml', '--targets', 'run/evaluation.jsonl']
    const result = await json(['evaluate', 'model', ...config])
    expect(result['eval/easy/prediction']).toBe(first['eval/easy/prediction'])
    expect(result['eval/easy/reasoning']).toBe(first['eval/easy/reasoning'])
    expect(result['eval/easy/length']).toBe(first['eval/easy/length'])
  })

  it('chooses its own questions on other text, and keeps them', async () => {
    const flags = [
      '--evaluation.sources',
      'corpus.jsonl',
      '--evaluation.reasoning',
      'false',
      '--evaluation.documents',
      '3',
    ]
    const result = await json([
      'evaluate',
      'model',
      ...flags,
      '--sampling.max-prompt-tokens',
      '2000',
      '--save-targets',
      't.jsonl',
    ])
    expect(result.targets).toBeGreaterThan(0)
    expect(result).not.toHaveProperty('eval/easy/reasoning')
    expect(await readLines(world.path('t.jsonl'))).toHaveLength(3)
  })

  it('shows people a line per split: prediction, reasoning with its error, length of thought and answer, boxes', async () => {
    const { stdout } = await foretoken(['evaluate', 'run'], world.folder)
    expect(stdout).toMatch(/^split +positions +prediction +reasoning +forced +thought +length +no box$/m)
    expect(stdout).toMatch(/^easy +\d+ +[\d.]+ ± [\d.]+ % +[\d.]+ ± [\d.]+ % +– +[\d.]+ +[\d.]+ +[\d.]+ %$/m)
  })

  it('says what is missing where there is no text', async () => {
    const { status, stderr } = await foretoken(['evaluate', 'model'], world.folder)
    expect(status).toBe(1)
    expect(stderr).toContain('there are no documents to evaluate on: give --evaluation.sources')
  })
})

describe('foretoken export', () => {
  it('writes a model folder that scores like the checkpoint, without the training state', async () => {
    expect(await json(['export', 'run', 'exported'])).toMatchObject({ folder: 'exported', dtype: 'float32' })
    const files = await readdir(world.path('exported'))
    expect(files).toEqual(expect.arrayContaining(['config.json', 'model.safetensors', 'tokenizer.json']))
    expect(files).not.toContain('training')
    expect(await json(['score', 'exported', 'abc'])).toEqual(await json(['score', 'run', 'abc']))
    const again = await foretoken(['export', 'run', 'exported'], world.folder)
    expect(again.status).toBe(1)
    expect(again.stderr).toContain('exported is already there; choose another or pass --overwrite')
    await json(['export', 'run', 'exported', '--overwrite', '--dtype', 'bfloat16'])
    const small = (await stat(world.path('exported', 'model.safetensors'))).size
    expect(small).toBeLessThan((await stat(world.path('run', 'checkpoints', 'step-3', 'model.safetensors'))).size)
  })
})

describe('foretoken pretrain', () => {
  it('trains a new model whose checkpoint has the tokenizer', async () => {
    await writeFile(world.path('new.json'), JSON.stringify(tinyConfig))
    const args = ['pretrain', '--model.create', 'new.json', '--model.tokenizer', 'tokenizer', '--output', 'new']
    const { status, stderr } = await foretoken(
      [
        ...args,
        '--corpus.sources',
        'corpus.jsonl',
        '--steps',
        '60',
        '--schedule.warmup',
        '5',
        '--optimizer.learning-rate=1e-2',
        '--model.initialisation.embedding',
        '1',
        '--evaluation.reasoning',
        'false',
        '--evaluation.every',
        '0',
        '--sampling.max-prompt-tokens',
        '2000',
      ],
      world.folder,
    )
    expect(status, stderr).toBe(0)
    const losses = (await readLines(world.path('new', 'metrics.jsonl'))).slice(1).map(({ loss }) => loss as number)
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 2)
    expect(await json(['score', 'new', '3: aa'])).toMatchObject({ tokens: 5 })
    const config = await readFile(world.path('new', 'config.yaml'), 'utf8')
    expect(config).toContain('method: ntp')
  })
})

describe('foretoken train --method sft', () => {
  it('learns from traces', async () => {
    const args = ['train', 'run.yaml', '--method', 'sft', '--sft.traces', 'traces.jsonl', '--output', 'sft']
    const { status, stderr } = await foretoken([...args, '--sft.text-share', '0.25', '--steps', '4'], world.folder)
    expect(status, stderr).toBe(0)
    const metrics = await readLines(world.path('sft', 'metrics.jsonl'))
    expect(metrics.slice(1).every(({ traces }) => (traces as number) > 0)).toBe(true)
    const html = await readFile(world.path('sft', 'report.html'), 'utf8')
    for (const label of ['minimised', 'traces', 'text']) expect(html).toContain(`"label":"${label}"`)
  })
})
