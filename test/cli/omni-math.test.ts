import { execFileSync } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { describeShared, sharedPath } from '../text/shared.js'
import { foretoken, startForetoken } from './foretoken.js'
import { readLines, tinyConfig } from './tiny-world.js'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'foretoken-omni-'))
})
afterAll(() => rm(folder, { recursive: true }))

const corpus = [
  ...[
    '--corpus.sources',
    `[{ path: ${sharedPath('data', 'omni_math.jsonl')}, template: "{problem}\\n\\n{solution}" }]`,
  ],
  ...['--steps', '2', '--logging.progress-seconds', '0', '--evaluation.documents', '3', '--checkpoint.every', '1'],
  ...['--rpt.contexts-per-step', '8', '--rpt.rollouts-per-context', '4', '--sampling.max-tokens', '24'],
]

async function train(output: string, ...args: string[]) {
  const { status, stderr } = await foretoken(['train', '--output', output, ...corpus, ...args], folder)
  expect(status, stderr).toBe(0)
  const metrics = await readLines(join(folder, output, 'metrics.jsonl'))
  expect(metrics.map(({ step }) => step)).toEqual([0, 1, 2])
  for (const line of metrics) expect(Object.values(line).every(Number.isFinite), JSON.stringify(line)).toBe(true)
  return metrics
}

/**
 * Whether transformers loads a run's last checkpoint, cuts OmniMATH into the same tokens and gives the same logits. The
 * script exits with 1 where not.
 */
async function compareWithTransformers(output: string): Promise<string> {
  const script = join(import.meta.dirname, '..', '..', 'scripts', 'compare-with-transformers.py')
  const checkpoint = join(folder, output, 'checkpoints', 'step-2')
  expect(await readdir(checkpoint)).toContain('model.safetensors')
  const texts = ['--jsonl', sharedPath('data', 'omni_math.jsonl'), '--field', 'problem', '--count', '4']
  return execFileSync(process.env.PYTHON!, [script, checkpoint, ...texts], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

// PYTHON=.venv/bin/python npx vitest run test/cli/omni-math.test.ts (see bench/peers/README.md for the environment)
const itWithTransformers = it.skipIf(process.env.PYTHON === undefined)

/** The greatest resident memory of a run up to a step and to its end, in MB. */
async function memoryOf(args: readonly string[], step: number): Promise<[number, number]> {
  const { child, outcome } = startForetoken(args, folder)
  let most: [number, number] = [0, 0]
  let steps = 0
  child.stderr!.on('data', (data: Buffer) => {
    steps += (data.toString().match(/^step /gm) ?? []).length
  })
  while (child.exitCode === null) {
    const status = await readFile(`/proc/${child.pid}/status`, 'utf8').catch(() => '')
    const resident = Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1e3
    most = [steps <= step ? Math.max(most[0], resident) : most[0], Math.max(most[1], resident)]
    await setTimeout(20)
  }
  const { status, stderr } = await outcome
  expect(status, stderr).toBe(0)
  return most
}

describeShared('models/stories260K', 'OmniMATH with stories260K', () => {
  it('trains, with a reward that every group differs in', async () => {
    const model = ['--model.path', sharedPath('models', 'stories260K', 'hf'), '--corpus.on-bad-document', 'skip']
    const prompt = ['--prompt.template', '{context}', '--sampling.max-prompt-tokens', '200']
    const metrics = await train('stories', ...model, ...prompt, '--rpt.reward', 'information-gain')
    expect(metrics[2]!['rpt/groups_trained']).toBe(8)
    expect(metrics[2]!['importance_ratio/mean']).toBe(1)
    expect(metrics[2]!.grad_norm).toBeGreaterThan(0)
  })

  it.runIf(process.platform === 'linux')('holds no more memory after many steps than after a few', async () => {
    const model = ['--model.path', sharedPath('models', 'stories260K', 'hf'), '--corpus.on-bad-document', 'skip']
    const prompt = ['--prompt.template', '{context}', '--sampling.max-prompt-tokens', '200']
    const long = [
      '--steps',
      '100',
      '--evaluation.enabled',
      'false',
      '--checkpoint.every',
      '0',
      '--logging.report',
      'false',
    ]
    const args = ['train', '--output', 'long', ...corpus, ...model, ...prompt, ...long]
    const [first, all] = await memoryOf([...args, '--rpt.reward', 'information-gain'], 30)
    expect(first).toBeGreaterThan(20)
    // The collector of JavaScript's garbage lets some tens of megabytes come and go.
    expect(all - first).toBeLessThan(60)
  })

  itWithTransformers('leaves a checkpoint that has the same logits in transformers', async () => {
    expect(await compareWithTransformers('stories')).toContain('the same; largest difference')
  })
})

describeShared('tokenizers/qwen2.5', 'OmniMATH with a new Qwen3-shaped model under the Qwen2.5 tokenizer', () => {
  it('trains, and its checkpoint is a model', async () => {
    const create = { ...tinyConfig, vocab_size: 151_936, max_position_embeddings: 1024, eos_token_id: 151_643 }
    const model = ['--model.create', JSON.stringify(create), '--model.tokenizer', sharedPath('tokenizers', 'qwen2.5')]
    const metrics = await train('qwen', ...model, '--sampling.max-prompt-tokens', '400', '--rpt.reward', 'log-prob')
    expect(metrics[2]!.grad_norm).toBeGreaterThan(0)
    const scored = await foretoken(['score', 'qwen', '\\frac{1}{2} + x', '--json'], folder)
    expect(scored.status, scored.stderr).toBe(0)
    expect(JSON.parse(scored.stdout).logprob).toBeLessThan(0)
  })

  itWithTransformers('leaves a checkpoint that has the same logits in transformers', async () => {
    expect(await compareWithTransformers('qwen')).toContain('the same; largest difference')
  })
})
