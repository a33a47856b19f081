import { firstTokenOf } from './first-token.js'
import { plainContext } from './plain-context.js'
import type { Reward, RewardContext, RewardTools, ScoreRequest } from './reward.js'

/**
 * 1 where the first token is right, else the probability that the model itself, without a thought, gives the wrong
 * token after the text (RPT paper, appendix A); 0 without a prediction.
 */
export const denseReward: Reward = { name: 'dense', evaluate: (contexts, tools) => denseValues(contexts, tools) }

/** The dense reward in groups where at least one answer is right; all others get minus `penalty`, by default 0. */
export function conditionalDenseReward({ penalty = 0 }: { penalty?: number } = {}): Reward {
  return {
    name: 'conditional-dense',
    async evaluate(contexts, tools) {
      const values = await denseValues(contexts, tools)
      const solved = new Set<number>()
      contexts.forEach((context, i) => {
        if (values[i] === right) solved.add(context.group)
      })
      // 0 - penalty: a penalty of 0 must not become -0.
      return contexts.map((context, i) => (solved.has(context.group) ? values[i]! : 0 - penalty))
    },
  }
}

async function denseValues(contexts: readonly RewardContext[], tools: RewardTools): Promise<number[]> {
  const values = new Array<number>(contexts.length).fill(0)
  const wrong: number[] = []
  const requests: ScoreRequest[] = []
  contexts.forEach((context, i) => {
    const token = firstTokenOf(tools.tokenizer, context.prediction)
    if (token === undefined) return
    if (token === context.document.ids[context.position]) {
      values[i] = right
      return
    }
    const text = plainContext(context, tools.tokenizer)
    // Nothing precedes the first token of a text, so the model gives it no probability.
    if (text.length === 0) return
    wrong.push(i)
    requests.push({ context: text, tokens: Int32Array.of(token) })
  })
  if (requests.length === 0) return values
  const logprobs = await tools.score(requests)
  wrong.forEach((i, request) => {
    // A wrong token the model is certain of must not pass for a right one.
    values[i] = Math.min(Math.exp(logprobs[request]![0]!), 1 - Number.EPSILON)
  })
  return values
}

const right = 1
