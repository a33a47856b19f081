// A reward of one's own: the share of the next line that the answer gets right, instead of all or nothing.
//
//   node custom-reward.js MODEL TEXT

import { Corpus, Engine, rewardFromFunction, rpt, Tokenizer, Trainer } from 'foretoken'

const [model, text] = process.argv.slice(2) as [string, string]

const nextLine = rewardFromFunction(({ truth, prediction }) => {
  if (prediction === null) return 0
  const line = truth.indexOf(0x0a) < 0 ? truth : truth.subarray(0, truth.indexOf(0x0a))
  let right = 0
  while (right < prediction.length && right < line.length && prediction[right] === line[right]) ++right
  return right / Math.max(1, line.length)
}, 'next-line')

await using engine = await Engine.open(model)
const trainer = new Trainer({
  engine,
  tokenizer: await Tokenizer.open(model),
  corpus: await Corpus.open({ sources: [{ path: text, unit: 'paragraph' }], shuffle: { seed: 1 } }),
  method: rpt({
    prompt: { template: '{context}', chat: 'never' },
    contextsPerStep: 8,
    maxPromptTokens: 128,
    sampling: { maxTokens: 64 },
  }),
  reward: nextLine,
  steps: 2,
})
for await (const { step, reward, grad_norm } of trainer) console.log({ step, reward, grad_norm })
