/** The architecture of a loaded model, as its config.json gives it with defaults filled in. */
export interface ModelConfig {
  readonly family: 'llama' | 'mistral' | 'qwen2' | 'qwen3'
  readonly vocabSize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numLayers: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly tieWordEmbeddings: boolean
  /** The longest path of a forest. */
  readonly maxPositionEmbeddings: number
  readonly bosTokenId: number | null
  readonly eosTokenIds: readonly number[]
  readonly padTokenId: number | null
  /** What the checkpoint is stored in, not what it is computed in. */
  readonly dtype: 'float32' | 'bfloat16' | 'float16'
}
