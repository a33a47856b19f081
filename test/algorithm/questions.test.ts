import { expect, test } from 'vitest'
import { addQuestions } from '../../lib/algorithm/questions.js'
import type { Target } from '../../lib/algorithm/targets.js'
import { TokenForest } from '../../lib/engine/token-forest.js'
import { Document } from '../../lib/text/document.js'
import { Prompt } from '../../lib/text/prompt.js'
import { byteLevelTokenizer } from '../text/small-tokenizers.js'

const tokenizer = byteLevelTokenizer()
const target = (document: Document, position: number): Target => ({ document, position, entropy: Number.NaN })

test.each(['v0', 'v6', '{context}'])(
  'a forest of documents holds the flat prompts of %s token for token',
  (template) => {
    const prompt = Prompt.compile(tokenizer, { template })
    const first = Document.tokenize(tokenizer, 'Two and two are four; three and three are six.')
    const second = Document.tokenize(tokenizer, 'Naïve text: “quoted”.')
    // Unordered and equal positions too.
    const targets = [9, 3, 30, 9].map((t) => target(first, t)).concat([1, 12, 20].map((t) => target(second, t)))

    const forest = new TokenForest()
    const questions = addQuestions(forest, prompt, targets)
    expect(questions).toHaveLength(targets.length)
    questions.forEach((segment, i) => {
      const { document, position } = targets[i]!
      expect(forest.flatten(segment)).toEqual(prompt.flat(document, position))
    })

    // The template's beginning once, each document up to its last cut once, the template's end once per cut.
    const { prefix, suffix } = prompt
    expect(forest.length).toBe(prefix.length + 30 + 20 + suffix.length * 6)
  },
)
