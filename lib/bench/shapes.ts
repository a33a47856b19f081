import { nearestName } from '../engine/nearest-name.js'
import { invalidArgument } from '../engine/validate.js'

/** Architectures of published small models, to be filled with random weights. */
export const shapes = {
  'qwen3-12m': {
    model_type: 'qwen3',
    ...{ vocab_size: 8192, hidden_size: 384, intermediate_size: 1024, num_hidden_layers: 6 },
    ...{ num_attention_heads: 6, num_key_value_heads: 2, head_dim: 64 },
    ...{ tie_word_embeddings: true, max_position_embeddings: 4096 },
  },
  'smollm2-135m': {
    model_type: 'llama',
    ...{ vocab_size: 49152, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30 },
    ...{ num_attention_heads: 9, num_key_value_heads: 3 },
    ...{ tie_word_embeddings: true, max_position_embeddings: 8192 },
  },
  'qwen2.5-0.5b': {
    model_type: 'qwen2',
    ...{ vocab_size: 151936, hidden_size: 896, intermediate_size: 4864, num_hidden_layers: 24 },
    ...{ num_attention_heads: 14, num_key_value_heads: 2 },
    ...{ tie_word_embeddings: true, max_position_embeddings: 32768 },
  },
} as const satisfies Record<string, object>

/** The config of a shape; throws `INVALID_ARGUMENT` with the nearest name for one that does not exist. */
export function shapeNamed(name: string): object {
  if (name in shapes) return shapes[name as keyof typeof shapes]
  const known = Object.keys(shapes)
  const nearest = nearestName(name, known)
  throw invalidArgument(
    `there is no shape ${name}; ${nearest === undefined ? `there are ${known.join(', ')}` : `did you mean ${nearest}?`}`,
  )
}
