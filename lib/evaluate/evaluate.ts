import { deviation, meanOf } from '../algorithm/advantages.js'
import { Meter, meteredEngine, parameterCount } from '../algorithm/meter.js'
import { contextCharacters, text, thoughtOf, truthBytes } from '../algorithm/samples.js'
import { type DifficultySplit, difficultySplits } from '../corpus/positions.js'
import type { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'
import { Prompt } from '../text/prompt.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { predictTargets } from './prediction.js'
import { answerTargets, type EvaluatedAnswer } from './reasoning.js'
import type {
  EvaluationOptions,
  EvaluationReport,
  EvaluationSample,
  EvaluationTarget,
  ReasoningResult,
  SplitResult,
} from './types.js'

/**
 * Measures a model on fixed targets, for each (nested) split of difficulty: plain next-token prediction against
 * next-token reasoning, free and, where asked for, forced to work.
 */
export async function evaluate(
  engine: Pick<Engine, 'score' | 'sample' | 'config' | 'parameters' | 'setTokenBytes'>,
  tokenizer: Tokenizer,
  targets: readonly EvaluationTarget[],
  options: EvaluationOptions = {},
): Promise<EvaluationReport> {
  if (targets.length === 0) {
    throw new ForetokenError('INVALID_DATA', 'an evaluation needs positions; none is hard enough, or there is no text')
  }
  const begin = performance.now()
  const meter = new Meter(parameterCount(engine))
  const metered = meteredEngine(engine, meter)
  const { signal, forced, keepSamples = 3 } = options
  if ((options.stopTexts ?? []).length > 0) await engine.setTokenBytes(tokenizer.bytes)
  const predicted = await predictTargets(metered, tokenizer, targets, { signal })

  let free: EvaluatedAnswer[][] | undefined
  let worked: EvaluatedAnswer[][] | undefined
  if (!options.predictionOnly) {
    const prompt = Prompt.compile(tokenizer, options.prompt)
    const runs = forced ? 2 : 1
    const answer = (run: number, forbidden: readonly number[] = []) =>
      answerTargets(metered, tokenizer, prompt, targets, {
        ...options,
        bannedTokens: [...(options.bannedTokens ?? []), ...forbidden],
        onProgress: (done, total) => options.onProgress?.(run * total + done, runs * total),
      })
    free = await answer(0)
    if (forced) worked = await answer(1, forced.bannedTokens)
  }

  const splits = {} as Record<DifficultySplit, SplitResult>
  for (const [split, threshold] of Object.entries(difficultySplits) as [DifficultySplit, number][]) {
    const inSplit = targets.map((_, i) => i).filter((i) => targets[i]!.entropy > threshold)
    const right = inSplit.map((i) => (predicted[i] ? 1 : 0))
    splits[split] = {
      positions: inSplit.length,
      prediction: meanOf(right),
      predictionStandardError: standardError(right),
      ...(free && { reasoning: reasoningResult(inSplit.map((i) => free[i]!)) }),
      ...(worked && { forced: reasoningResult(inSplit.map((i) => worked[i]!)) }),
    }
  }
  return {
    splits,
    tokens: meter.tokens,
    flops: meter.flops,
    seconds: (performance.now() - begin) / 1000,
    samples: free ? readable(targets, free, keepSamples) : [],
  }
}

function reasoningResult(answers: readonly EvaluatedAnswer[][]): ReasoningResult {
  const all = answers.flat()
  // Answers to one question are not independent, so the error is that of the questions' means.
  const means = answers.map((group) => meanOf(group.map(({ right }) => (right ? 1 : 0))))
  return {
    accuracy: meanOf(means),
    standardError: standardError(means),
    length: meanOf(all.map(({ length }) => length)),
    thoughtLength: meanOf(all.map(({ judged }) => judged.thoughtLength)),
    withoutBox: meanOf(all.map(({ boxed }) => (boxed ? 0 : 1))),
    truncated: meanOf(all.map(({ truncated }) => (truncated ? 1 : 0))),
  }
}

function standardError(values: readonly number[]): number {
  return deviation(values, meanOf(values)) / Math.sqrt(values.length)
}

/** The first answers to targets spread over all. */
function readable(
  targets: readonly EvaluationTarget[],
  answers: readonly EvaluatedAnswer[][],
  count: number,
): EvaluationSample[] {
  const chosen = Math.min(count, targets.length)
  return Array.from({ length: chosen }, (_, i) => {
    const at = Math.floor((i * targets.length) / chosen)
    const { document, position, entropy } = targets[at]!
    const { judged, right } = answers[at]![0]!
    return {
      document: document.id,
      position,
      entropy,
      context: text(document.bytes.subarray(0, document.offsets[position]!)).slice(-contextCharacters),
      thought: text(thoughtOf(judged.responseBytes)),
      prediction: judged.prediction && text(judged.prediction),
      truth: text(judged.truth.subarray(0, truthBytes)),
      right,
    }
  })
}
