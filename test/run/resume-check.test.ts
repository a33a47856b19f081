import { describe, expect, it } from 'vitest'
import type { RunConfig } from '../../lib/run/config-schema.js'
import { parseConfigSource } from '../../lib/run/config-source.js'
import { resolveConfig } from '../../lib/run/load-config.js'
import type { RunManifest } from '../../lib/run/manifest.js'
import { configChanges, manifestChanges, refuseChanges } from '../../lib/run/resume-check.js'

function config(yaml = ''): RunConfig {
  return resolveConfig({ source: parseConfigSource('run.yaml', `model: { path: /m }\n${yaml}`) })
}

const manifest: RunManifest = {
  format: 1,
  foretoken: '0.1.0',
  node: '20.19.0',
  platform: 'linux-x64 6.1',
  cpu: 'a processor',
  memoryBytes: 1e9,
  device: 'cpu',
  deviceDescription: 'cpu, avx2, float32, 2 threads',
  dtype: 'float32',
  stateDtype: 'float32',
  parameters: 1000,
  seed: 0,
  tokenizer: 't',
  corpus: { fingerprint: 'c', files: [{ name: 'a.txt', bytes: 10, digest: 'd' }] },
  reward: null,
  sessions: [],
}

describe('the config of a resumed run', () => {
  it('has changed where a key that decides the outcome has, and says from what to what', () => {
    const changed = config('seed: 3\nrpt: { clip: [0.2, 0.28] }\nprompt: { system: be brief }')
    expect(configChanges(config(), changed)).toEqual([
      'config: seed was 0 and is 3',
      'config: rpt.clip was [0.2,0.2] and is [0.2,0.28]',
      'config: prompt.system was not set and is "be brief"',
    ])
  })

  it('has not where only what is kept, shown or how fast it is has changed', () => {
    const free =
      'output: x\ncheckpoint: { every: 7, keepBest: false }\nlogging: { report: false }\nengine: { threads: 1 }'
    expect(configChanges(config(), config(free))).toEqual([])
  })

  it('may have more steps, unless the learning rate falls towards the last', () => {
    expect(configChanges(config('steps: 5'), config('steps: 9'))).toEqual([])
    const falling = 'schedule: { kind: linear }\n'
    expect(configChanges(config(`${falling}steps: 5`), config(`${falling}steps: 9`))).toEqual([
      'config: steps was 5 and is 9',
    ])
  })
})

describe('data and machine of a resumed run', () => {
  it('have changed where files, tokenizer, reward, device or instruction set have', () => {
    const after: RunManifest = {
      ...manifest,
      deviceDescription: 'cpu, avx512, float32, 2 threads',
      tokenizer: 'u',
      reward: 'r',
      corpus: {
        fingerprint: 'e',
        files: [
          { name: 'a.txt', bytes: 11, digest: 'f' },
          { name: 'b.txt', bytes: 1, digest: 'g' },
        ],
      },
    }
    expect(manifestChanges(manifest, after)).toEqual([
      'data: a.txt has changed (10 bytes then, 11 now)',
      'data: b.txt is new',
      'reward: the module has changed',
      'tokenizer: its vocabulary or rules have changed',
      'machine: was cpu, avx2, float32 and is cpu, avx512, float32',
    ])
  })

  it('have changed where the same files come in another order', () => {
    const after = { ...manifest, corpus: { ...manifest.corpus, fingerprint: 'e' } }
    expect(manifestChanges(manifest, after)).toEqual(['data: the order of the documents has changed'])
  })

  it('have not where only threads, Node or the processor have', () => {
    const after = { ...manifest, deviceDescription: 'cpu, avx2, float32, 1 thread', node: '24.0.0', cpu: 'another' }
    expect(manifestChanges(manifest, after)).toEqual([])
  })

  it('are refused together, with the way on', () => {
    expect(() => refuseChanges('runs/a', [])).not.toThrow()
    expect(() => refuseChanges('runs/a', ['data: x is gone', 'config: y'])).toThrow(
      /^the run in runs\/a cannot go on.*\n {2}data: x is gone\n {2}config: y\n.*--allow-changes/s,
    )
  })
})
