import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Engine } from '../../lib/engine/engine.js'
import { byteAlphabet } from '../text/small-tokenizers.js'

/** A folder with everything that a run needs: a model of some thousand weights, a corpus, traces, a reward, a config. */
export interface TinyWorld {
  folder: string
  path(...names: string[]): string
  remove(): Promise<void>
}

/** The architecture of the model. */
export const tinyConfig = {
  architectures: ['Qwen3ForCausalLM'],
  model_type: 'qwen3',
  vocab_size: 260,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  hidden_act: 'silu',
  max_position_embeddings: 256,
  rms_norm_eps: 1e-6,
  rope_theta: 10_000,
  tie_word_embeddings: false,
  torch_dtype: 'float32',
  bos_token_id: null,
  eos_token_id: 256,
}

export async function makeTinyWorld(): Promise<TinyWorld> {
  const folder = await mkdtemp(join(tmpdir(), 'foretoken-cli-'))
  const path = (...names: string[]) => join(folder, ...names)
  await writeTokenizer(path('tokenizer'))
  await using engine = await Engine.create(tinyConfig, { seed: 7, initialisation: { embedding: 1 } })
  await engine.save(path('model'))
  await writeTokenizer(path('model'))

  const letters = ['a', 'b', 'c', 'd']
  const documents = Array.from({ length: 60 }, (_, i) => {
    const words = Array.from({ length: 6 }, (_, j) => letters[(i * 7 + j * j) % 4]!.repeat(1 + ((i + j) % 3)))
    return `${i}: ${words.join(' ')}.`
  })
  await writeFile(path('corpus.jsonl'), documents.map((text) => `${JSON.stringify({ text })}\n`).join(''))
  const traces = documents.map((text) => `${text}<think>so</think>\\boxed{ }`)
  await writeFile(path('traces.jsonl'), traces.map((text) => `${JSON.stringify({ text })}\n`).join(''))
  // A reward that random answers differ in, so that there is something to learn; slow where it is told to be.
  await writeFile(
    path('reward.mjs'),
    `export default async function lowCodes({ response }) {
      const delay = Number(process.env.REWARD_DELAY ?? 0)
      if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay))
      return response.reduce((sum, id) => sum + (id < 128 ? 1 : 0), 0) / response.length
    }\n`,
  )
  await writeFile(
    path('run.yaml'),
    `method: rpt
steps: 8
output: run
model: { path: model }
corpus: { sources: corpus.jsonl, heldOut: 0.2, shuffleWindow: 16 }
prompt: { template: 'Next: {context}', chat: never }
difficulty: { minEntropy: 0, maxPerDocument: 2 }
rpt: { contextsPerStep: 6, rolloutsPerContext: 4, reward: reward.mjs, updatesPerBatch: 2 }
sampling: { maxTokens: 10, maxPromptTokens: 80 }
optimizer: { learningRate: 1e-3 }
evaluation: { every: 3, documents: 4, positionsPerDocument: 2 }
checkpoint: { every: 2 }
logging: { progressSeconds: 0 }
`,
  )
  return { folder, path, remove: () => rm(folder, { recursive: true }) }
}

/** A byte-level vocabulary without merges: what tokenizer.json and its companion hold. */
async function writeTokenizer(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  const vocab = Object.fromEntries(byteAlphabet().map((character, id) => [character, id]))
  const added = ['</s>', '<think>', '</think>'].map((content, i) => ({
    ...{ id: 256 + i, content, special: i === 0 },
    ...{ single_word: false, lstrip: false, rstrip: false, normalized: false },
  }))
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  const tokenizer = {
    version: '1.0',
    model: { type: 'BPE', vocab, merges: [] },
    added_tokens: added,
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: { type: 'ByteLevel' },
  }
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
  await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({ eos_token: '</s>' }))
}

/** The lines of a log. */
export async function readLines(path: string): Promise<Record<string, unknown>[]> {
  const lines = (await readFile(path, 'utf8')).split('\n').slice(0, -1)
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>)
}

/** Metrics without what depends on the machine's speed. */
export async function comparableMetrics(path: string): Promise<Record<string, unknown>[]> {
  const timed = (name: string) => name.startsWith('seconds/') || name === 'step_time' || name === 'tokens_per_second'
  return (await readLines(path)).map((line) =>
    Object.fromEntries(Object.entries(line).filter(([name]) => !timed(name))),
  )
}
