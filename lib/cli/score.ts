import { Command } from 'commander'
import { addPlainRoot } from '../algorithm/difficulty.js'
import { TokenForest } from '../engine/token-forest.js'
import { inputText } from './input-text.js'
import { addModelOptions, type ModelFlags, openModel, wholeNumber } from './model-options.js'
import { printResult, textTable } from './print.js'

interface ScoreFlags extends ModelFlags {
  file?: string
  tokens?: boolean
  topK: number
  json?: boolean
}

export function scoreCommand(): Command {
  return addModelOptions(new Command('score'))
    .description('log-prob and entropy of a text, token by token')
    .argument('<model>', 'folder of a model, a checkpoint or a run')
    .argument('[text]', 'what to score')
    .option('--file <path>', 'read the text from a file; - is standard input')
    .option('--tokens', 'print every token')
    .option('--top-k <count>', 'tokens over which the difficulty is taken', wholeNumber, 16)
    .option('--json', 'print the result as JSON, with every token')
    .addHelpText(
      'after',
      `
Examples:
  foretoken score ./model 'The sky is blue.' --tokens
  foretoken score ./model --file chapter.txt --json`,
    )
    .action(async (model: string, argument: string | undefined, flags: ScoreFlags) => {
      const text = await inputText(argument, flags.file)
      const { engine, tokenizer } = await openModel(model, flags)
      try {
        const ids = tokenizer.encode(text)
        const forest = new TokenForest()
        const segment = forest.add(addPlainRoot(forest, tokenizer), ids)
        const scores = await engine.score(forest, { topEntropy: flags.topK })
        const part = (values: Float32Array) => Array.from(forest.slice(segment, values))
        const [logprobs, entropies, difficulties] = [scores.logprobs, scores.entropy, scores.topEntropy!].map(part)
        const tokens = Array.from(ids, (id, t) => ({
          id,
          text: tokenizer.decode([id], { special: true, continues: true }),
          logprob: logprobs![t]!,
          entropy: entropies![t]!,
          difficulty: difficulties![t]!,
        }))
        const known = tokens.filter(({ logprob }) => !Number.isNaN(logprob))
        const logprob = known.reduce((sum, token) => sum + token.logprob, 0)
        const perToken = logprob / Math.max(1, known.length)
        const bytes = Buffer.byteLength(text)
        const result = {
          tokens: ids.length,
          bytes,
          logprob,
          logprobPerToken: perToken,
          perplexity: Math.exp(-perToken),
          bitsPerByte: -logprob / Math.LN2 / Math.max(1, bytes),
        }
        const summary =
          `${ids.length} tokens, ${bytes} bytes: log-prob ${logprob.toFixed(3)}, ${perToken.toFixed(4)} a token, ` +
          `perplexity ${result.perplexity.toFixed(3)}, ${result.bitsPerByte.toFixed(4)} bits a byte`
        const rows = () => [
          ['token', 'id', 'log-prob', 'entropy', `top-${flags.topK}`],
          ...tokens.map((token) => [JSON.stringify(token.text), String(token.id), ...figures(token)]),
        ]
        printResult(flags.json, { ...result, perTokens: tokens }, () =>
          flags.tokens ? `${textTable(rows())}\n${summary}` : summary,
        )
      } finally {
        await engine.dispose()
      }
    })
}

function figures({ logprob, entropy, difficulty }: Record<'logprob' | 'entropy' | 'difficulty', number>): string[] {
  return [logprob, entropy, difficulty].map((value) => (Number.isNaN(value) ? '–' : value.toFixed(4)))
}
