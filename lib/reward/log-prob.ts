import type { Tokenizer } from '../text/tokenizer.js'
import { endOfThought } from './extract-box.js'
import { plainContext } from './plain-context.js'
import type { Reward, RewardContext, RewardTools, ScoreRequest } from './reward.js'

/** How the true continuation is put after a thought. */
export interface LogProbOptions {
  /** How many true tokens are scored; their log-probs are averaged. Default 1. */
  tokens?: number
  /** What stands between the thought and the true tokens. Default `\boxed{`. */
  answer?: string
}

/** Mean log-prob of the true tokens where the model has thought: the prediction it wrote itself is not looked at. */
export function logProbReward(options: LogProbOptions = {}): Reward {
  return {
    name: 'log-prob',
    evaluate: (contexts, tools) =>
      meanLogprobs(
        contexts.map((context) => afterThought(context, tools, options)),
        tools,
      ),
  }
}

/**
 * How much the thought helps (RLP, arXiv 2510.01265): the log-prob of the true tokens after the thought minus their
 * log-prob in the plain text under `baseline` weights, by default the moving average. Positions need a context.
 */
export function informationGainReward({
  baseline = 'average',
  ...options
}: LogProbOptions & { baseline?: 'average' | 'reference' | 'current' } = {}): Reward {
  return {
    name: 'information-gain',
    ...(baseline !== 'current' && { needs: baseline }),
    async evaluate(contexts, tools) {
      const thoughtful = contexts.map((context) => afterThought(context, tools, options))
      const plain = contexts.map((context) => ({
        context: plainContext(context, tools.tokenizer),
        tokens: trueTokens(context, options),
        weights: baseline,
      }))
      const values = await meanLogprobs([...thoughtful, ...plain], tools)
      return contexts.map((_, i) => values[i]! - values[contexts.length + i]!)
    },
  }
}

function afterThought(context: RewardContext, { tokenizer }: RewardTools, options: LogProbOptions): ScoreRequest {
  const thought = thoughtOf(context, tokenizer)
  const answer = tokenizer.encode(options.answer ?? '\\boxed{', { continues: true })
  return { context: concatenate(context.prompt, thought, answer), tokens: trueTokens(context, options) }
}

/** The response up to the token that completes `</think>`; a thought without an end is closed, as RLP does. */
function thoughtOf({ response, responseBytes }: RewardContext, tokenizer: Tokenizer): Int32Array {
  const end = Buffer.from(responseBytes).indexOf(endOfThought) + endOfThought.length
  if (end < endOfThought.length) {
    const last = response.at(-1)
    const open = last !== undefined && tokenizer.stopIds.includes(last) ? response.subarray(0, -1) : response
    return concatenate(open, tokenizer.encode('</think>', { special: true, continues: true }))
  }
  let length = 0
  let count = 0
  while (length < end) length += tokenizer.bytes.lengthOf(response[count++]!)
  return response.subarray(0, count)
}

function trueTokens({ document, position }: RewardContext, { tokens = 1 }: LogProbOptions): Int32Array {
  return document.ids.subarray(position, position + tokens)
}

async function meanLogprobs(requests: ScoreRequest[], tools: RewardTools): Promise<number[]> {
  const answers = await tools.score(requests)
  return answers.map((logprobs) => Array.from(logprobs).reduce((sum, value) => sum + value, 0) / logprobs.length)
}

function concatenate(...parts: Int32Array[]): Int32Array {
  const joined = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    joined.set(part, at)
    at += part.length
  }
  return joined
}
