import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import { ForetokenError } from '../engine/errors.js'
import { writeByteTokenizer } from '../text/byte-tokenizer.js'
import { Tokenizer } from '../text/tokenizer.js'
import { printResult } from './print.js'

interface TokenizerFlags {
  overwrite?: boolean
  json?: boolean
}

export function tokenizerCommand(): Command {
  return new Command('tokenizer')
    .description('write a tokenizer of bytes, for a new model: it fits every text and needs no training')
    .argument('<folder>', 'where tokenizer.json goes; pretrain takes it as model.tokenizer')
    .option('--overwrite', 'replace a tokenizer that is there')
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      `
Tokens 0 to 255 are the bytes; 256 <think>, 257 </think>, 258 \\boxed{ and 259, the end of a text. A model for it has
vocab_size 260 and eos_token_id 259.

Example:
  foretoken tokenizer ./tokenizer`,
    )
    .action(async (folder: string, flags: TokenizerFlags) => {
      const file = join(folder, 'tokenizer.json')
      if (!flags.overwrite && (await stat(file).catch(() => undefined))) {
        throw new ForetokenError('INVALID_ARGUMENT', `${file} is already there; choose another folder or --overwrite`)
      }
      await writeByteTokenizer(folder)
      const { vocabSize, eosId } = await Tokenizer.open(folder)
      const result = { folder, vocabSize, eosTokenId: eosId }
      printResult(
        flags.json,
        result,
        () => `${folder}: a token per byte; for the model: vocab_size ${vocabSize}, eos_token_id ${eosId}`,
      )
    })
}
