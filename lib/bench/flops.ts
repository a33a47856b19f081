import type { Engine } from '../engine/engine.js'

/**
 * Floating-point operations of one token that goes forward among `length` tokens, on average over them.
 *
 * 2 per weight of a matrix product: all matrices but the embedding, which is looked up, unless it is the head too. And
 * 2 · L · H · D · length for causal attention: scores and values take 4 per position, and half of the positions lie ahead.
 */
export function forwardFlops(engine: Pick<Engine, 'config' | 'parameters'>, length: number): number {
  const { config } = engine
  const weights = engine
    .parameters()
    .filter(({ name, shape }) => shape.length === 2 && (config.tieWordEmbeddings || !name.includes('embed_tokens')))
    .reduce((sum, { shape }) => sum + shape[0]! * shape[1]!, 0)
  return 2 * weights + 2 * config.numLayers * config.numHeads * config.headDim * length
}
