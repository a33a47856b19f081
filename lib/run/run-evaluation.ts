import type { EvaluationOptions } from '../evaluate/types.js'
import type { RunConfig } from './config-schema.js'
import { promptOptions } from './make-method.js'

/** How the models of a config are evaluated. */
export function evaluationOptions(config: RunConfig): EvaluationOptions {
  const { samples, temperature, reasoning, forbidden, keepSamples } = config.evaluation
  return {
    prompt: promptOptions(config),
    samples: temperature === 0 ? 1 : samples,
    temperature,
    maxTokens: config.sampling.maxTokens,
    stopTexts: config.sampling.stopTexts,
    bannedTokens: config.sampling.bannedTokens,
    seed: config.seed,
    keepSamples,
    predictionOnly: !reasoning,
    ...(forbidden.length > 0 && { forced: { bannedTokens: forbidden } }),
  }
}
