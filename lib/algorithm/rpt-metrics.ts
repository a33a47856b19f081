import { difficultySplits } from '../corpus/positions.js'
import { prefixMatch } from '../reward/prefix-match.js'
import { deviation, meanOf } from './advantages.js'
import { hasSignal } from './groups.js'
import type { Answer, AnswerGroup } from './rollouts.js'

/** Whether an answer is right by prefix match, whatever the run's reward is. */
export function isRight({ judged }: Answer): boolean {
  return prefixMatch(judged.prediction, judged.document, judged.position)
}

/** The numbers of a step's rollouts, all sampled groups counted. */
export function rolloutMetrics(groups: readonly AnswerGroup[]): Record<string, number> {
  const answers = groups.flatMap((group) => group.answers)
  if (answers.length === 0) return {}
  const rewards = groups.map((group) => group.answers.map(({ reward }) => reward))
  const lengths = answers.map(({ tokens }) => tokens.length)
  const share = (test: (answer: Answer) => boolean) => answers.filter(test).length / answers.length
  const metrics: Record<string, number> = {
    reward: meanOf(rewards.flat()),
    reward_std: meanOf(rewards.map((group) => deviation(group, meanOf(group)))),
    frac_reward_zero_std: rewards.filter((group) => !hasSignal(group)).length / groups.length,
    'completions/mean_length': meanOf(lengths),
    'completions/min_length': lengths.reduce((a, b) => Math.min(a, b)),
    'completions/max_length': lengths.reduce((a, b) => Math.max(a, b)),
    'completions/mean_thought_length': meanOf(answers.map(({ judged }) => judged.thoughtLength)),
    'completions/clipped_ratio': share(({ stop }) => stop === 'length'),
    'completions/without_box': share(({ judged }) => judged.prediction === null),
    'rpt/accuracy': share(isRight),
    'rpt/groups': groups.length,
    'rpt/documents': new Set(groups.map(({ target }) => target.document)).size,
  }
  for (const [split, threshold] of Object.entries(difficultySplits)) {
    const inSplit = groups.filter(({ target }) => target.entropy > threshold).flatMap((group) => group.answers)
    if (inSplit.length > 0) metrics[`rpt/accuracy/${split}`] = inSplit.filter(isRight).length / inSplit.length
  }
  return metrics
}
