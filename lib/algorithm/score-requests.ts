import type { Engine } from '../engine/engine.js'
import type { RewardTools, ScoreRequest } from '../reward/reward.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { shareBeginnings } from './shared-forest.js'

/** What rewards may use: log-probs under the engine's weights, where requests share all their beginnings. */
export function rewardTools(engine: Pick<Engine, 'score'>, tokenizer: Tokenizer): RewardTools {
  return { tokenizer, score: (requests) => scoreRequests(engine, requests) }
}

async function scoreRequests(
  engine: Pick<Engine, 'score'>,
  requests: readonly ScoreRequest[],
): Promise<Float32Array[]> {
  const answers = new Array<Float32Array>(requests.length)
  for (const weights of ['current', 'reference', 'average'] as const) {
    const chosen = requests.map((_, i) => i).filter((i) => (requests[i]!.weights ?? 'current') === weights)
    if (chosen.length === 0) continue
    const sequences = chosen.map((i) => {
      const { context, tokens } = requests[i]!
      const sequence = new Int32Array(context.length + tokens.length)
      sequence.set(context)
      sequence.set(tokens, context.length)
      return sequence
    })
    const { forest, indices } = shareBeginnings(sequences)
    const { logprobs } = await engine.score(forest, { weights })
    chosen.forEach((i, at) => {
      const tokens = indices[at]!.subarray(requests[i]!.context.length)
      answers[i] = Float32Array.from(tokens, (index) => logprobs[index]!)
    })
  }
  return answers
}
