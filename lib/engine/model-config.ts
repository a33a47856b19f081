/** The architecture of a loaded model, as its config.json gives it with defaults filled in. */
export interface ModelConfig {
  /** Which implementation: `model_type` of config.json. */
  readonly family: 'llama' | 'mistral' | 'qwen2' | 'qwen3'
  /** V. */
  readonly vocabSize: number
  /** C. */
  readonly hiddenSize: number
  /** F. */
  readonly intermediateSize: number
  /** L. */
  readonly numLayers: number
  /** H, of queries. */
  readonly numHeads: number
  /** K, of keys and values. */
  readonly numKvHeads: number
  /** D. */
  readonly headDim: number
  /** Whether the output head is the embedding. */
  readonly tieWordEmbeddings: boolean
  /** The longest path of a forest. */
  readonly maxPositionEmbeddings: number
  /** The token that begins a text. */
  readonly bosTokenId: number | null
  /** The tokens that end one. */
  readonly eosTokenIds: readonly number[]
  /** The token that fills batches elsewhere; the engine never pads. */
  readonly padTokenId: number | null
  /** What the checkpoint is stored in, not what it is computed in. */
  readonly dtype: 'float32' | 'bfloat16' | 'float16'
}
