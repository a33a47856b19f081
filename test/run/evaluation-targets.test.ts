import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { textsCorpus } from '../../lib/algorithm/text-corpus.js'
import { Engine } from '../../lib/engine/engine.js'
import type { EvaluationTarget } from '../../lib/evaluate/types.js'
import { parseConfigSource } from '../../lib/run/config-source.js'
import { chooseTargets, type HeldOut, readTargets, writeTargets } from '../../lib/run/evaluation-targets.js'
import { resolveConfig } from '../../lib/run/load-config.js'
import { Tokenizer } from '../../lib/text/tokenizer.js'
import { makeTinyWorld, readLines, type TinyWorld } from '../cli/tiny-world.js'

let world: TinyWorld
let engine: Engine
let tokenizer: Tokenizer
beforeAll(async () => {
  world = await makeTinyWorld()
  engine = await Engine.open(world.path('model'))
  tokenizer = await Tokenizer.open(world.path('model'))
})
afterAll(async () => {
  await engine.dispose()
  await world.remove()
})

const config = resolveConfig({
  source: parseConfigSource(
    'run.yaml',
    'model: { path: /m }\nevaluation: { positionsPerDocument: 3 }\ndifficulty: { minContext: 2 }',
  ),
})

/** A corpus of these texts, all held out, and the questions about them. */
async function choose(texts: readonly string[]): Promise<{ heldOut: HeldOut; targets: EvaluationTarget[] }> {
  const heldOut: HeldOut = { corpus: textsCorpus([...texts]), part: 'all' }
  return { heldOut, targets: await chooseTargets(config, engine, tokenizer, heldOut) }
}

describe('the kept questions of an evaluation', () => {
  it('are the same and in the same order where texts come more than once, side by side or not', async () => {
    const [a, b] = ['one of two texts, and it is here again', 'another text, which is longer than the one before it']
    const { heldOut, targets } = await choose([a!, b!, b!, a!, b!])
    expect(targets).toHaveLength(15)
    await writeTargets(world.path('again.jsonl'), targets)
    expect(await readTargets(world.path('again.jsonl'), config, tokenizer, heldOut)).toEqual(targets)
  })

  it('take a line per document', async () => {
    const { targets } = await choose(['the first of two texts', 'the second of them'])
    await writeTargets(world.path('lines.jsonl'), targets)
    expect((await readLines(world.path('lines.jsonl'))).map(({ positions }) => positions)).toEqual([
      targets.slice(0, 3).map(({ position }) => position),
      targets.slice(3).map(({ position }) => position),
    ])
  })

  it('about a text that is gone are refused with the name of the file', async () => {
    const { targets } = await choose(['here today'])
    const { heldOut } = await choose(['gone tomorrow'])
    await writeTargets(world.path('gone.jsonl'), targets)
    await expect(readTargets(world.path('gone.jsonl'), config, tokenizer, heldOut)).rejects.toMatchObject({
      code: 'DATA_CHANGED',
      message: expect.stringContaining(`${world.path('gone.jsonl')} asks about document`),
    })
  })
})
