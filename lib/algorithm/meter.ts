import type { Engine } from '../engine/engine.js'
import type { MethodEngine } from './method.js'

/** What went through the network, in tokens; shared tokens count once. */
export class Meter {
  /** Tokens that went forward and backward. */
  trained = 0
  /** Tokens that were sampled. */
  generated = 0
  /** Prompts, before generation. */
  prefilled = 0
  /** Tokens that went forward only. */
  scored = 0

  constructor(
    /** N: the number of the model's parameters. */
    readonly parameters: number,
  ) {}

  /** All of them. */
  get tokens(): number {
    return this.trained + this.generated + this.prefilled + this.scored
  }

  /**
   * 6N for a trained token (forward and backward), 2N for any other (arXiv 2001.08361, 2203.15556). The forward pass
   * counts also where sampling had made it: what is kept depends on memory.
   */
  get flops(): number {
    return this.parameters * (6 * this.trained + 2 * (this.generated + this.prefilled + this.scored))
  }
}

/** The number of a model's parameters. */
export function parameterCount(engine: Pick<Engine, 'parameters'>): number {
  return engine.parameters().reduce((sum, { shape }) => sum + shape.reduce((product, n) => product * n, 1), 0)
}

/** An engine whose calls are counted. */
export function meteredEngine(engine: MethodEngine, meter: Meter): MethodEngine {
  return {
    config: engine.config,
    async score(forest, options) {
      const result = await engine.score(forest, options)
      meter.scored += forest.length
      return result
    },
    async sample(forest, options) {
      const result = await engine.sample(forest, options)
      meter.prefilled += result.statistics.prefillTokens
      meter.generated += result.statistics.decodeTokens
      return result
    },
  }
}
