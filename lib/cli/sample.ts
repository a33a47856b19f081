import { Command } from 'commander'
import { TokenForest } from '../engine/token-forest.js'
import { extractBox } from '../reward/extract-box.js'
import { Document } from '../text/document.js'
import { Prompt } from '../text/prompt.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { inputText } from './input-text.js'
import { addModelOptions, type ModelFlags, openModel, positiveNumber, wholeNumber } from './model-options.js'
import { printResult } from './print.js'

interface SampleFlags extends ModelFlags {
  file?: string
  n: number
  maxTokens: number
  temperature: number
  topP?: number
  topK?: number
  minP?: number
  seed: number
  reason?: boolean
  template?: string
  chat?: boolean
  json?: boolean
}

export function sampleCommand(): Command {
  return addModelOptions(new Command('sample'))
    .description('let a model continue a text, or reason about what comes next')
    .argument('<model>', 'folder of a model, a checkpoint or a run')
    .argument('[text]', 'what to continue')
    .option('--file <path>', 'read the text from a file; - is standard input')
    .option('-n, --n <count>', 'answers', wholeNumber, 1)
    .option('--max-tokens <count>', 'most tokens of an answer', wholeNumber, 256)
    .option('--temperature <value>', '0 takes the most probable tokens', positiveNumber, 0.8)
    .option('--top-p <share>', 'only the most probable tokens of this mass', positiveNumber)
    .option('--top-k <count>', 'only so many most probable tokens', wholeNumber)
    .option('--min-p <share>', "only tokens with this share of the best one's probability", positiveNumber)
    .option('--seed <number>', 'the same seed gives the same answers', wholeNumber, 0)
    .option('--chat', "put the text as a user's message into the model's chat template")
    .option('--reason', 'ask what comes next, with the prompt of rpt: think first, then answer in a box')
    .option('--template <text>', 'v0 to v6, or a text with {context} in it (default: v0, with --reason)')
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      `
Examples:
  foretoken sample ./model 'Once upon a time' --n 3
  foretoken sample runs/rpt 'The derivative of x^2 is' --reason --max-tokens 1024`,
    )
    .action(async (model: string, argument: string | undefined, flags: SampleFlags) => {
      const text = await inputText(argument, flags.file)
      const { engine, tokenizer } = await openModel(model, flags)
      try {
        const forest = new TokenForest()
        const from = forest.add(null, promptIds(tokenizer, text, flags))
        const { rollouts } = await engine.sample(forest, {
          from: [from],
          n: flags.n,
          maxTokens: flags.maxTokens,
          temperature: flags.temperature,
          topP: flags.topP,
          topK: flags.topK,
          minP: flags.minP,
          seed: flags.seed,
          stop: { tokens: tokenizer.stopIds },
        })
        const answers = rollouts.map(({ tokens, logprobs, stop }) => ({
          text: tokenizer.decode(tokens, { special: flags.reason === true, continues: true }),
          ...(flags.reason && { prediction: predictionOf(tokenizer, tokens, stop) }),
          tokens: tokens.length,
          logprob: logprobs.reduce((sum, logprob) => sum + logprob, 0),
          stop,
        }))
        printResult(flags.json, { answers }, () => answers.map(answerText).join('\n---\n'))
      } finally {
        await engine.dispose()
      }
    })
}

/** What was written, and with --reason below it what counts as the prediction. */
function answerText({ text, prediction }: { text: string; prediction?: string | null }): string {
  if (prediction === undefined) return text
  return `${text}\n→ ${prediction === null ? 'no box' : JSON.stringify(prediction)}`
}

function promptIds(tokenizer: Tokenizer, text: string, flags: SampleFlags): Int32Array {
  if (flags.reason || flags.template !== undefined) {
    const document = Document.tokenize(tokenizer, text)
    const template = flags.template === undefined ? {} : { template: flags.template }
    return Prompt.compile(tokenizer, template).flat(document, document.length)
  }
  if (flags.chat) {
    return Prompt.compile(tokenizer, { template: '{context}', chat: 'always', think: '' }).flat(
      Document.tokenize(tokenizer, text),
      Document.tokenize(tokenizer, text).length,
    )
  }
  const ids = tokenizer.encode(text)
  return tokenizer.addsBos || ids.length === 0 ? Int32Array.from([...firstToken(tokenizer), ...ids]) : ids
}

function firstToken(tokenizer: Tokenizer): number[] {
  const id = tokenizer.bosId ?? tokenizer.eosId
  return id === undefined ? [] : [id]
}

function predictionOf(tokenizer: Tokenizer, tokens: Int32Array, stop: string): string | null {
  const box = stop === 'length' ? null : extractBox(tokenizer.bytes.join(tokens))
  return box && Buffer.from(box).toString('utf8')
}
