import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readConfigSource, resolveConfig } from '../../lib/run/load-config.js'

const folder = join(import.meta.dirname, '..', '..', 'examples')
const configs = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.yaml'))

describe('the configs in examples/', () => {
  it.each(configs)('%s is accepted by the schema', async (name) => {
    const config = resolveConfig({ source: await readConfigSource(join(folder, name)) })
    expect(config.corpus.sources?.length).toBeGreaterThan(0)
  })

  it("omni-math.yaml changes nothing of METHOD's objective", async () => {
    const paper = resolveConfig({ source: await readConfigSource(join(folder, 'omni-math.yaml')) })
    const defaults = resolveConfig({ flags: [{ path: ['model', 'path'], value: 'm', written: '--model.path' }] })
    for (const section of ['rpt', 'sampling', 'optimizer', 'schedule', 'prompt'] as const) {
      expect(paper[section], section).toEqual(defaults[section])
    }
    expect(paper.difficulty).toEqual({ ...defaults.difficulty, index: paper.difficulty.index })
  })
})
