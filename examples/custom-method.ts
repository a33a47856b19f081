// A method of one's own: the model learns its own right answers by heart (expert iteration) instead of by policy
// gradient. Text, questions, rollouts, rewards, checkpoints and metrics are those of `rpt`.
//
//   node custom-method.js MODEL TEXT

import {
  addQuestions,
  Corpus,
  drawTargets,
  Engine,
  type Method,
  Prompt,
  rollOut,
  TokenForest,
  Tokenizer,
  Trainer,
} from 'foretoken'

const [model, text] = process.argv.slice(2) as [string, string]

const expertIteration: Method = {
  name: 'expert-iteration',
  settings: { contexts: 8, answers: 4 },
  documents: () => ({ maxTokens: 128 }),

  async collect(tools) {
    const prompt = Prompt.compile(tools.tokenizer, { template: '{context}', chat: 'never' })
    const targets = await drawTargets(tools, 8, { by: 'random', minContext: 8, maxPerDocument: 2 })
    if (targets.length === 0) return undefined
    const groups = await rollOut(tools, prompt, targets, { rolloutsPerContext: 4, maxTokens: 64 })

    const forest = new TokenForest()
    const questions = addQuestions(forest, prompt, targets)
    const right = groups.flatMap(({ answers }, i) =>
      answers.filter(({ reward }) => reward > 0).map(({ tokens }) => forest.add(questions[i]!, tokens)),
    )
    const weights = new Float32Array(forest.length)
    for (const segment of right) weights.fill(1, forest.segment(segment).begin, forest.segment(segment).end)
    return {
      updates: right.length > 0 ? [{ forest, terms: { answers: { kind: 'cross-entropy', weights } } }] : [],
      metrics: { right: right.length / (targets.length * 4) },
    }
  },
}

await using engine = await Engine.open(model)
const trainer = new Trainer({
  engine,
  tokenizer: await Tokenizer.open(model),
  corpus: await Corpus.open({ sources: [{ path: text, unit: 'paragraph' }], shuffle: { seed: 1 } }),
  method: expertIteration,
  steps: 2,
})
for await (const { step, right, loss } of trainer) console.log({ step, right, loss })
