import type { TokenForest } from '../engine/token-forest.js'
import type { Prompt } from '../text/prompt.js'
import type { Target } from './targets.js'

/**
 * Adds the prompts of targets to a forest: the words before the context once, below them for each document a chain of
 * context segments cut at its targets, and the words after the context hanging off each cut.
 *
 * Targets of one document must be neighbours. Returns the segment to continue for each target, in order. Flattened,
 * every prompt is `prompt.flat(document, position)`.
 */
export function addQuestions(forest: TokenForest, prompt: Prompt, targets: readonly Target[]): number[] {
  const root = prompt.prefix.length > 0 && targets.length > 0 ? forest.add(null, prompt.prefix) : null
  const questions: number[] = []
  for (let at = 0; at < targets.length; ) {
    const { document } = targets[at]!
    let end = at + 1
    while (end < targets.length && targets[end]!.document === document) ++end
    const positions = targets.slice(at, end).map(({ position }) => position)
    questions.push(...prompt.addTo(forest, document, positions, root))
    at = end
  }
  return questions
}
