// The four verbs in a loop of one's own, without corpus, trainer or method: the model learns to write vowels.
//
//   node own-loop.js MODEL "Once upon a time"

import { Engine, TokenForest, Tokenizer } from 'foretoken'

const [model, question = 'Once upon a time'] = process.argv.slice(2) as [string, string?]

await using engine = await Engine.open(model)
const tokenizer = await Tokenizer.open(model)

for (let step = 0; step < 5; ++step) {
  // sample: a question and sixteen answers that share it.
  const forest = new TokenForest()
  const root = forest.add(null, tokenizer.encode(question, { template: true }))
  const { rollouts } = await engine.sample(forest, { from: [root], n: 16, maxTokens: 24, seed: step })
  const segments = rollouts.map(({ segment, tokens }) => forest.add(segment, tokens))

  const rewards = rollouts.map(({ tokens }) => {
    const text = tokenizer.decode(tokens)
    return (text.match(/[aeiou]/g)?.length ?? 0) / Math.max(1, text.length)
  })
  const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length

  // score: what was sampled has the same log-probs when it is read, to the last bit.
  const { logprobs } = await engine.score(forest)
  const exact = rollouts.every((rollout, i) => {
    const read = forest.slice(segments[i]!, logprobs)
    return rollout.logprobs.every((value, t) => value === read[t])
  })

  // accumulate and step: one policy-gradient update.
  const advantages = rewards.map((reward) => 10 * (reward - mean))
  await engine.accumulate(forest, [{ kind: 'policy', segments, advantages }])
  const { gradNorm } = await engine.step({ learningRate: 3e-4, maxGradNorm: 1 })
  console.log({ step, vowels: mean.toFixed(3), gradNorm: gradNorm.toFixed(3), exact })
}
