import { Engine } from '../engine/engine.js'
import type { EngineOptions } from '../engine/options.js'
import { TokenForest } from '../engine/token-forest.js'

/** One thing that was tried. */
export interface SelfTestCheck {
  name: string
  ok: boolean
  /** What came out, or what went wrong. */
  detail: string
}

export interface SelfTest {
  ok: boolean
  seconds: number
  /** The device that computed, in its own words; null where none could be opened. */
  device: string | null
  checks: SelfTestCheck[]
}

/** A Qwen3 of 140,000 weights. */
const config = {
  model_type: 'qwen3',
  architectures: ['Qwen3ForCausalLM'],
  ...{ vocab_size: 512, hidden_size: 64, intermediate_size: 160, num_hidden_layers: 2, head_dim: 16 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, max_position_embeddings: 256 },
  ...{ rms_norm_eps: 1e-6, rope_theta: 10_000, hidden_act: 'silu', tie_word_embeddings: true },
}

type Create = (config: object, options: EngineOptions & { seed: number }) => Promise<Engine>

/**
 * Creates a tiny model and does with it what training does: sample, score, differentiate, update; and checks that a
 * sampled token's log-prob has the same bits when it is scored and when it is trained on. Takes a second or so.
 */
export async function selfTest(options: EngineOptions = {}, create: Create = Engine.create): Promise<SelfTest> {
  const begin = performance.now()
  const checks: SelfTestCheck[] = []
  let device: string | null = null
  for (const dtype of ['float32', 'bfloat16'] as const) {
    const check = (name: string, ok: boolean, detail: string) => checks.push({ name: `${dtype}: ${name}`, ok, detail })
    try {
      await using engine = await create(config, { ...options, dtype, seed: 1 })
      device = engine.deviceDescription
      await testEngine(engine, check)
    } catch (error) {
      const { code, message } = error as { code?: string; message?: string }
      check('run', false, [code, message ?? error].filter((part) => part !== undefined).join(': '))
    }
  }
  const seconds = (performance.now() - begin) / 1000
  return { ok: checks.every(({ ok }) => ok), seconds, device, checks }
}

async function testEngine(engine: Engine, check: (name: string, ok: boolean, detail: string) => void): Promise<void> {
  const forest = new TokenForest()
  const prompt = Int32Array.from({ length: 48 }, (_, i) => (i * 37) % engine.config.vocabSize)
  const context = forest.add(null, prompt)
  const { rollouts } = await engine.sample(forest, { from: [context], n: 8, maxTokens: 24, seed: 7 })
  const segments = rollouts.map(({ segment, tokens }) => forest.add(segment, tokens))
  const sampled = rollouts.flatMap(({ logprobs }) => [...logprobs])
  const sane = sampled.length === 8 * 24 && sampled.every((value) => Number.isFinite(value) && value <= 0)
  check('sample', sane, `${sampled.length} tokens in ${rollouts.length} rollouts`)

  const before = await engine.score(forest)
  const scored = before.logprobs.subarray(prompt.length)
  const different = sampled.filter((value, i) => value !== scored[i]).length
  const bits = different === 0 ? 'all bits the same' : `${different} of ${sampled.length} log-probs differ`
  check('score gives what sample gave', different === 0 && scored.length === sampled.length, bits)

  const advantages = segments.map((_, i) => (i % 2 === 0 ? 1 : -1))
  const oldLogprobs = rollouts.map(({ logprobs }) => logprobs)
  const { terms } = await engine.accumulate(forest, [{ kind: 'policy', segments, advantages, oldLogprobs }])
  const { ratioMax } = terms[0]!
  // The reference computes in double precision, and log-probs come out of it rounded to float32.
  const tolerance = engine.device === 'reference' ? 1e-5 : 0
  check('accumulate sees the policy that sampled', Math.abs(ratioMax - 1) <= tolerance, `largest ratio ${ratioMax}`)

  const { gradNorm } = await engine.step({ learningRate: 1e-3 })
  check('step', Number.isFinite(gradNorm) && gradNorm > 0, `gradient norm ${gradNorm.toPrecision(3)}`)
  const after = await engine.score(forest)
  const gain = meanGain(forest, segments, advantages, (t) => after.logprobs[t]! - before.logprobs[t]!)
  check('rewarded tokens become more probable', gain > 0, `by ${gain.toPrecision(3)} nats`)
}

/** The mean over all tokens of their segment's advantage times their change. */
function meanGain(
  forest: TokenForest,
  segments: readonly number[],
  advantages: readonly number[],
  change: (token: number) => number,
): number {
  let [sum, count] = [0, 0]
  for (const [i, segment] of segments.entries()) {
    const { begin, end } = forest.segment(segment)
    for (let t = begin; t < end; ++t, ++count) sum += advantages[i]! * change(t)
  }
  return sum / count
}
