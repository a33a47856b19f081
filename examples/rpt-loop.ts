// Reinforcement pre-training with nothing but the engine's four verbs, for a loop of your own.
//
//   node rpt-loop.js MODEL TEXT [STEPS]
//
// A small base model cannot think aloud yet, so its rollout is the prediction itself: the next token at chosen places of
// the text, rewarded when it is what the text says next. Contexts of one passage are cuts of one chain of segments
// and share everything up to the earlier cut, in sampling and in training.

import { readFile } from 'node:fs/promises'
import { Document, Engine, prefixMatch, TokenForest, Tokenizer } from 'foretoken'

const [model, file, steps = '5'] = process.argv.slice(2) as [string, string, string?]
const [contexts, every, group, length] = [8, 24, 16, 1]

await using engine = await Engine.open(model)
const tokenizer = await Tokenizer.open(model)
const text = await readFile(file, 'utf8')

for (let step = 0; step < Number(steps); ++step) {
  const document = Document.tokenize(tokenizer, text.slice(step * 1000, step * 1000 + 1000))
  const forest = new TokenForest()
  const cuts = Array.from({ length: contexts }, (_, i) => (i + 1) * every)
  let parent: number | null = null
  const from = cuts.map((cut) => (parent = forest.add(parent, document.ids.subarray(cut - every, cut))))

  const { rollouts } = await engine.sample(forest, {
    from,
    n: group,
    maxTokens: length,
    temperature: 1,
    seed: step,
    keepActivations: true,
  })
  const rewards = rollouts.map(({ segment, tokens }) =>
    Number(prefixMatch(tokenizer.bytes.join(tokens), document, cuts[from.indexOf(segment)]!)),
  )

  // GRPO: a rollout's advantage is its reward against its group's mean and spread; groups that agree teach nothing.
  const segments: number[] = []
  const advantages: number[] = []
  for (let g = 0; g < contexts; ++g) {
    const mine = rewards.slice(g * group, (g + 1) * group)
    const mean = mine.reduce((sum, reward) => sum + reward, 0) / group
    const spread = Math.sqrt(mine.reduce((sum, reward) => sum + (reward - mean) ** 2, 0) / (group - 1))
    if (spread === 0) continue
    mine.forEach((reward, i) => {
      const { segment, tokens } = rollouts[g * group + i]!
      segments.push(forest.add(segment, tokens))
      advantages.push((reward - mean) / (spread + 1e-6))
    })
  }
  const reward = rewards.reduce((sum, each) => sum + each, 0) / rewards.length
  if (segments.length === 0) {
    console.log({ step, reward })
    continue
  }
  // Sampler and trainer agree bit for bit, so the ratio is exactly 1 and no old log-probs are needed.
  const { terms } = await engine.accumulate(forest, [{ kind: 'policy', segments, advantages }])
  const { gradNorm } = await engine.step({ learningRate: 1e-4, maxGradNorm: 1 })
  console.log({ step, reward, gradNorm, entropy: terms[0]!.entropy })
}
