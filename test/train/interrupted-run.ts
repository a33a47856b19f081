// A run in a process of its own, to be killed: node --import …/scripts/typescript.mjs interrupted-run.ts FOLDER METHOD
// Takes up the newest checkpoint in FOLDER, prints a line of JSON per step and at the end a digest of the weights.

import { createHash } from 'node:crypto'
import { ntp } from '../../lib/algorithm/ntp.js'
import { sft } from '../../lib/algorithm/sft.js'
import { textsCorpus } from '../../lib/algorithm/text-corpus.js'
import { latestCheckpoint } from '../../lib/train/checkpoint.js'
import { Trainer } from '../../lib/train/trainer.js'
import { tinyOptions, tinyRpt, weightsOf, withoutTimes } from './tiny-run.js'

const traces = textsCorpus([
  '1+1=<think>one more</think>\\boxed{2}',
  '5+2=<think>two more</think>\\boxed{7}',
  'a<think>b',
])
const methods = {
  // 6 contexts of 3 per document: the corpus of 40 documents ends within a step.
  rpt: () => tinyRpt({ kl: { coefficient: 0.01 }, dynamicSampling: { fromStep: 2, maxTries: 2 } }),
  sft: () =>
    sft({
      traces,
      textShare: 0.5,
      sequencesPerStep: 5,
      maxTokens: 12,
      onBadTrace: 'skip',
      prompt: { template: '{context}' },
    }),
  ntp: () => ntp({ tokensPerStep: 100, maxTokens: 7 }),
}

const [directory, name] = process.argv.slice(2) as [string, keyof typeof methods]
const options = await tinyOptions({
  steps: 16,
  method: methods[name](),
  averageTau: 0.9,
  optimizer: { learningRate: 3e-3, schedule: { kind: 'cosine', warmup: 3 } },
  checkpoint: { directory, every: 3, keepLast: 1, keepBest: { metric: 'loss', mode: 'min' } },
})
const trainer = new Trainer(options)
const checkpoint = await latestCheckpoint(directory)
if (checkpoint) await trainer.restore(checkpoint.directory)
for await (const step of trainer) process.stdout.write(`${JSON.stringify(withoutTimes(step))}\n`)
const hash = createHash('sha256')
for (const values of Object.values(await weightsOf(options.engine))) hash.update(values)
process.stdout.write(`${JSON.stringify({ step: 'end', weights: hash.digest('hex'), state: trainer.state() })}\n`)
await options.engine.dispose()
