import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import { Corpus } from '../corpus/corpus.js'
import { ForetokenError } from '../engine/errors.js'
import { learnMerges, tokenizerMarks, writeTokenizer } from '../text/new-tokenizer.js'
import { Tokenizer } from '../text/tokenizer.js'
import { addCorpusOptions, type CorpusFlags, corpusSource } from './corpus-options.js'
import { wholeNumber } from './model-options.js'
import { printResult } from './print.js'

interface TokenizerFlags extends CorpusFlags {
  output: string
  vocabSize: number
  overwrite?: boolean
  json?: boolean
}

const leastSize = 256 + tokenizerMarks.length

export function tokenizerCommand(): Command {
  return addCorpusOptions(new Command('tokenizer'))
    .description('make a tokenizer for a new model, from your own text')
    .argument('[files...]', 'text to learn from: files, folders or patterns; without any, every byte is a token')
    .requiredOption('-o, --output <folder>', 'where tokenizer.json goes; pretrain takes the folder as model.tokenizer')
    .option('--vocab-size <count>', 'tokens at most, all counted', wholeNumber, 1024)
    .option('--overwrite', 'replace a tokenizer that is there')
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      `
Byte-pair encoding as GPT-2 has it: it fits every text, whatever it was made from. The last four tokens are <think>,
</think>, \\boxed{ and the end of a text. The model needs the vocab_size and eos_token_id that are printed.

Example:
  foretoken tokenizer books/ -o ./tokenizer --vocab-size 4096`,
    )
    .action(async (files: string[], flags: TokenizerFlags) => {
      const folder = flags.output
      const file = join(folder, 'tokenizer.json')
      if (flags.vocabSize < leastSize) {
        throw new ForetokenError(
          'INVALID_ARGUMENT',
          `--vocab-size is ${flags.vocabSize}; the bytes and the marks of an answer are ${leastSize} already`,
        )
      }
      if (!flags.overwrite && (await stat(file).catch(() => undefined))) {
        throw new ForetokenError('INVALID_ARGUMENT', `${file} is already there; choose another folder or --overwrite`)
      }
      const merges = files.length === 0 ? [] : await learnMerges(textsOf(files, flags), flags.vocabSize - leastSize)
      await writeTokenizer(folder, merges)
      const { vocabSize, eosId } = await Tokenizer.open(folder)
      const result = { folder, vocabSize, eosTokenId: eosId }
      printResult(flags.json, result, () => `${folder}: for the model, vocab_size ${vocabSize}, eos_token_id ${eosId}`)
    })
}

async function* textsOf(files: readonly string[], flags: CorpusFlags): AsyncGenerator<string> {
  const onBadRecord = flags.skipBad ? 'skip' : 'error'
  const corpus = await Corpus.open({ sources: [corpusSource(files, flags)], onBadRecord })
  for await (const { text } of corpus.stream()) yield text
}
