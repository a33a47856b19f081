import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { DemoResult } from '../../lib/cli/demo/demo-result.js'
import { removeDemo } from '../../lib/cli/demo/run-demo.js'
import { demoCommand } from '../../lib/cli/demo.js'
import { Engine } from '../../lib/engine/engine.js'
import { TokenForest } from '../../lib/engine/token-forest.js'
import { Tokenizer } from '../../lib/text/tokenizer.js'

/** Runs the command and gives what it prints on standard output. */
async function demo(...args: string[]): Promise<string> {
  let printed = ''
  const out = vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    printed += String(text)
    return true
  })
  const progress = vi.spyOn(process.stderr, 'write').mockImplementation(() => true)
  try {
    await demoCommand().parseAsync(args, { from: 'user' })
    return printed
  } finally {
    out.mockRestore()
    progress.mockRestore()
  }
}

describe('foretoken demo', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'foretoken-demo-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  test('--quick goes through every stage, and leaves a model, a result and a report', async () => {
    const out = join(folder, 'quick')
    const printed = await demo('--quick', '--out', out)
    for (const name of [
      'prediction before',
      'prediction of the control',
      'made to work it out',
      'reasoning after RPT',
    ]) {
      expect(printed).toContain(name)
    }
    const result = JSON.parse(await readFile(join(out, 'result.json'), 'utf8')) as DemoResult
    expect(result.cost.pretrain.steps).toBe(4)
    expect(result.lengths).toHaveLength(2)
    // The same questions to all arms, whose number depends on the model before.
    for (const split of ['easy', 'medium', 'hard'] as const) {
      expect(result.before[split]!.positions).toBeGreaterThan(0)
      expect(result.after[split]!.positions).toBe(result.before[split]!.positions)
      expect(result.control[split]!.positions).toBe(result.before[split]!.positions)
      expect(result.before[split]!.forced).not.toBeNull()
    }
    const report = await readFile(join(out, 'report.html'), 'utf8')
    expect(report).toContain('reasoning after RPT')

    await using engine = await Engine.open(result.model)
    const tokenizer = await Tokenizer.open(result.model)
    const forest = new TokenForest()
    forest.add(null, tokenizer.encode('Gaps: a5 b6'))
    const { logprobs } = await engine.score(forest)
    expect(logprobs.slice(1).every((value) => value < 0)).toBe(true)
    expect(await readdir(result.model)).not.toContain('trainer.json')

    // A demo that is complete is shown again, not run again; a real one does not mix with it.
    expect(await demo('--quick', '--out', out)).toBe(printed)
    await expect(demo('--out', out)).rejects.toThrow('holds a --quick demo')
  })

  test('two seeds are two demos and one table', async () => {
    const results = JSON.parse(
      await demo('--quick', '--out', join(folder, 'seeds'), '--seed', '3', '--seeds', '2', '--json'),
    ) as DemoResult[]
    expect(results.map(({ seed }) => seed)).toEqual([3, 4])
    expect(await readdir(join(folder, 'seeds'))).toEqual(['report.html', 'seed-3', 'seed-4'])
  })

  test('--overwrite removes what a demo wrote, and nothing else', async () => {
    const out = join(folder, 'overwritten')
    await mkdir(join(out, 'corpus'), { recursive: true })
    await writeFile(join(out, 'mine.txt'), 'mine')
    await writeFile(join(out, 'corpus', 'train.jsonl'), 'of an old demo')
    await removeDemo(out)
    expect(await readdir(out)).toEqual(['mine.txt'])
  })

  test('a number of seeds that is no number is refused', async () => {
    await expect(demo('--seeds', 'many', '--out', join(folder, 'none'))).rejects.toThrow('--seeds is "many"')
  })
})
