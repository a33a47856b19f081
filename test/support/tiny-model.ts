import { type CreateOptions, Engine } from '../../lib/index.js'

/** A model of two layers that is quick enough for any test; its weights are large enough for lively distributions. */
export const tinyConfig = {
  architectures: ['Qwen3ForCausalLM'],
  model_type: 'qwen3',
  vocab_size: 211,
  hidden_size: 48,
  intermediate_size: 80,
  num_hidden_layers: 2,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 16,
  hidden_act: 'silu',
  max_position_embeddings: 640,
  initializer_range: 0.15,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
}

export function tinyEngine(options: CreateOptions = {}): Promise<Engine> {
  return Engine.create(tinyConfig, { seed: 1, threads: 1, ...options })
}

/** Token ids of the tiny model from a small generator: the same for the same seed. */
export function tokenIds(count: number, seed: number): number[] {
  let state = (seed * 2654435761 + 12345) >>> 0
  return Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return 3 + ((state >>> 8) % (tinyConfig.vocab_size - 3))
  })
}
