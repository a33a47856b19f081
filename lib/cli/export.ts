import { stat } from 'node:fs/promises'
import { Command, Option } from 'commander'
import { Engine } from '../engine/engine.js'
import { ForetokenError } from '../engine/errors.js'
import { findModel, wholeNumber } from './model-options.js'
import { printResult } from './print.js'

interface ExportFlags {
  dtype?: 'float32' | 'bfloat16' | 'float16'
  maxShardBytes?: number
  overwrite?: boolean
  json?: boolean
}

export function exportCommand(): Command {
  return new Command('export')
    .description('write a checkpoint as a Hugging Face folder, without the training state')
    .argument('<checkpoint>', 'a checkpoint, or a run, whose newest one is taken')
    .argument('<folder>', 'where the model goes')
    .addOption(new Option('--dtype <name>', 'of the weights').choices(['float32', 'bfloat16', 'float16']))
    .option('--max-shard-bytes <count>', 'larger models are split over several files (default: one file)', wholeNumber)
    .option('--overwrite', 'replace a folder that is there')
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      `
Example:
  foretoken export runs/rpt/checkpoints/step-200 ./my-model --dtype bfloat16`,
    )
    .action(async (checkpoint: string, folder: string, flags: ExportFlags) => {
      const from = await findModel(checkpoint)
      if (!flags.overwrite && (await stat(folder).catch(() => undefined))) {
        throw new ForetokenError('INVALID_ARGUMENT', `${folder} is already there; choose another or pass --overwrite`)
      }
      await using engine = await Engine.open(from, { device: 'cpu' })
      await engine.save(folder, { dtype: flags.dtype, maxShardBytes: flags.maxShardBytes })
      const result = { from, folder, dtype: flags.dtype ?? engine.config.dtype }
      printResult(flags.json, result, () => `${folder}: ${result.dtype}, from ${from}`)
    })
}
