import { describe, expect, it } from 'vitest'
import { configFields } from '../../lib/run/config-fields.js'
import { parseConfigFlags } from '../../lib/run/config-flags.js'
import { configSchema, type RunConfig } from '../../lib/run/config-schema.js'
import { parseConfigSource } from '../../lib/run/config-source.js'
import { configYaml, resolveConfig } from '../../lib/run/load-config.js'
import { presets, pretrainPreset } from '../../lib/run/presets.js'

const fields = configFields(configSchema)

function resolve(yaml: string, ...args: string[]): RunConfig {
  return resolveConfig({ source: parseConfigSource('run.yaml', yaml), flags: parseConfigFlags(args, fields).flags })
}

const model = 'model: { path: /models/m }\n'

describe('the config', () => {
  it("has METHOD's choices as its defaults", () => {
    const config = resolve(model)
    expect(config.method).toBe('rpt')
    expect(config.rpt).toEqual({
      contextsPerStep: 256,
      rolloutsPerContext: 8,
      reward: 'prefix-match',
      rewardOptions: {},
      advantage: 'grpo',
      loss: 'clip',
      aggregation: 'token-mean',
      clip: [0.2, 0.2],
      kl: { coefficient: 0, estimator: 'k3' },
      entropyCoefficient: 0,
      updatesPerBatch: 1,
      epochsPerBatch: 1,
      overlong: { buffer: 0, factor: 1 },
      auxiliary: { coefficient: 0, maskTargets: true },
      dynamicSampling: { fromStep: 500, maxTries: 3 },
    })
    expect(config.sampling).toEqual({
      temperature: 0.8,
      topP: 1,
      topK: 0,
      minP: 0,
      maxTokens: 8192,
      maxPromptTokens: 4096,
      stopTexts: [],
      bannedTokens: [],
      keepActivations: true,
    })
    expect(config.optimizer).toEqual({
      learningRate: 1e-6,
      betas: [0.9, 0.999],
      epsilon: 1e-8,
      weightDecay: 0.01,
      decayAll: false,
      maxGradNorm: 1,
    })
    expect(config.schedule.kind).toBe('constant')
    expect(config.schedule.warmup).toBe(0)
    expect(config.difficulty).toMatchObject({ by: 'threshold', minEntropy: 0.5, topK: 16 })
    expect(config.prompt).toEqual({ template: 'v0', chat: 'auto' })
  })

  it('takes the defaults of the method, then the file, then the flags', () => {
    expect(resolve(`${model}method: ntp`).optimizer.learningRate).toBe(presets.ntp.optimizer?.learningRate)
    const file = `${model}method: ntp\noptimizer: { learningRate: 3e-4 }`
    expect(resolve(file).optimizer.learningRate).toBe(3e-4)
    expect(resolve(file).schedule).toEqual({ kind: 'cosine', warmup: 20, final: 0.1 })
    expect(resolve(file, '--optimizer.learning-rate', '2e-5').optimizer.learningRate).toBe(2e-5)
  })

  it('lets a flag choose the method whose defaults apply', () => {
    expect(resolve(model, '--method', 'ntp').schedule.kind).toBe('cosine')
  })

  it('lets pretrain bring its own defaults', () => {
    const source = parseConfigSource('run.yaml', model)
    const config = resolveConfig({ preset: pretrainPreset, source })
    expect(config.method).toBe('ntp')
    expect(config.optimizer).toMatchObject({ learningRate: 1e-3, betas: [0.9, 0.95], weightDecay: 0.1 })
  })

  it('reads back what it wrote', () => {
    const config = resolve(
      'model: { create: { model_type: qwen3, rope_scaling: null }, tokenizer: /t }\nmethod: sft\n' +
        'corpus: { sources: [/a/*.txt, { path: /b.jsonl, template: "{q}\\n{a}" }, { dataset: org/name }] }\n' +
        'prompt: { template: "no: {context}", think: "" }',
    )
    const again = resolveConfig({ source: parseConfigSource('config.yaml', configYaml(config)) })
    expect(again).toEqual(config)
  })

  it('reads JSON as well as YAML', () => {
    expect(resolve('{\n  "model": {"path": "/m"},\n  "steps": 3\n}').steps).toBe(3)
  })

  it('has a text, and a default where it is needed, for every key', () => {
    expect(fields.length).toBeGreaterThan(90)
    for (const field of fields) {
      expect(field.description, field.path).not.toBe('')
      expect(field.type, field.path).not.toBe('')
    }
    expect(fields.find(({ path }) => path === 'optimizer.learningRate')).toEqual({
      path: 'optimizer.learningRate',
      kind: 'number',
      type: 'number',
      description: 'peak learning rate',
      default: 1e-6,
    })
    expect(fields.find(({ path }) => path === 'method')?.type).toBe('rpt | ntp | sft')
  })
})

describe('a mistake in a config', () => {
  const refusal = (yaml: string, ...args: string[]) => {
    try {
      resolve(yaml, ...args)
    } catch (error) {
      return (error as Error).message
    }
    return 'accepted'
  }

  it('in the name of a key names file, line and column, and the nearest known key', () => {
    expect(refusal(`${model}optimizer:\n  weightDecay: 0\n  learning_rate: 1e-6\n`)).toBe(
      'run.yaml:4:3: optimizer.learning_rate is not a known key; did you mean learningRate?',
    )
    expect(refusal(`${model}smapling: { topK: 1 }`)).toBe(
      'run.yaml:2:1: smapling is not a known key; did you mean sampling?',
    )
  })

  it('in the type of a value says where it stands and what is expected', () => {
    expect(refusal(`${model}sampling:\n  temperature: hot\n`)).toBe(
      'run.yaml:3:3: sampling.temperature must be a number, not "hot"',
    )
    expect(refusal(`${model}steps: 1.5`)).toBe('run.yaml:2:1: steps must be a whole number, not 1.5')
    expect(refusal(`${model}sampling: { temperature: 0 }`)).toBe(
      'run.yaml:2:13: sampling.temperature must be above 0, not 0',
    )
    expect(refusal(`${model}rpt: { clip: [0.2] }`)).toContain('rpt.clip')
  })

  it('in a choice lists the choices and the nearest', () => {
    expect(refusal(`${model}rpt: { advantage: drgrpo }`)).toBe(
      'run.yaml:2:8: rpt.advantage must be one of grpo, dr-grpo, rloo, opo, batch, not "drgrpo"; did you mean dr-grpo?',
    )
  })

  it('in one of several sources points at that source', () => {
    expect(refusal(`${model}corpus:\n  sources:\n    - a.txt\n    - path: b.jsonl\n      feild: text\n`)).toBe(
      'run.yaml:6:7: corpus.sources.1.feild is not a known key; did you mean field?',
    )
  })

  it('is reported together with all others', () => {
    expect(refusal(`${model}steps: -1\nseed: x\nlogging: { evry: 1 }`).split('\n')).toHaveLength(3)
  })

  it('in YAML itself has its line', () => {
    expect(refusal('model: { path: a\nsteps: 1')).toMatch(/^run\.yaml:\d+:\d+: /)
    expect(refusal('- a\n- b')).toMatch(/^run\.yaml:1:1: a config is a list of keys/)
  })

  it('in a flag names the flag', () => {
    expect(refusal(model, '--sampling.temperature', 'hot')).toBe('--sampling.temperature must be a number, not "hot"')
    expect(refusal(model, '--learning-rate', '1')).toBe(
      '--learning-rate is not a known option; did you mean --optimizer.learning-rate?',
    )
    expect(refusal(model, '--optimizer.lerning-rate', '1')).toContain('did you mean --optimizer.learning-rate?')
    expect(refusal(model, '--optimizer.learning-rate')).toBe('--optimizer.learning-rate needs a value: number')
  })

  it('that leaves no model says what to give', () => {
    expect(refusal('steps: 1')).toBe('run.yaml: model needs either path (a checkpoint) or create (a new model)')
    expect(refusal('model: { create: { a: 1 } }')).toContain('model.tokenizer is needed for a new model')
  })
})

describe('flags', () => {
  it('may be written in kebab-case, in camelCase, with = and, for switches, without a value', () => {
    const config = resolve(
      model,
      ...['--optimizer.learning-rate', '1e-5', '--optimizer.weightDecay=0.1', '--engine.recompute'],
      ...['--corpus.shuffle', 'false', '--optimizer.betas', '[0.8, 0.9]', '--rpt.clip', '[0.2, 0.28]'],
    )
    expect(config.optimizer).toMatchObject({ learningRate: 1e-5, weightDecay: 0.1, betas: [0.8, 0.9] })
    expect(config.engine.recompute).toBe(true)
    expect(config.corpus.shuffle).toBe(false)
    expect(config.rpt.clip).toEqual([0.2, 0.28])
  })

  it('reach into maps with names as they are, and replace sources', () => {
    const yaml = 'model: { create: { hidden_size: 64, layers: 2 }, tokenizer: /t }\ncorpus: { sources: [/a.txt] }'
    const config = resolve(yaml, '--model.create.hidden_size', '128', '--corpus.sources', '/b.txt')
    expect(config.model.create).toEqual({ hidden_size: 128, layers: 2 })
    expect(config.corpus.sources).toEqual(['/b.txt'])
    expect(resolve(yaml, '--corpus.sources', '[{ path: /c.txt, unit: line }]').corpus.sources).toEqual([
      { path: '/c.txt', unit: 'line' },
    ])
  })

  it('leave what is no flag', () => {
    expect(parseConfigFlags(['a.yaml', '--steps', '3', 'b'], fields).rest).toEqual(['a.yaml', 'b'])
  })

  it('take text as it is', () => {
    expect(resolve(model, '--prompt.template', '{context} yes: [').prompt.template).toBe('{context} yes: [')
    expect(resolve(model, '--model.path', '123').model.path).toMatch(/123$/)
  })
})
