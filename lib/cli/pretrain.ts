import type { Command } from 'commander'
import { pretrainPreset } from '../run/presets.js'
import { runCommand } from './train.js'

export function pretrainCommand(): Command {
  return runCommand('pretrain', pretrainPreset, '--model.create, --model.tokenizer')
    .description('train a new model from nothing on text (ntp), or on text and traces (--method sft)')
    .addHelpText(
      'after',
      `
The same as train with defaults for new models: method ntp, learning rate 1e-3, cosine schedule with warm-up.
model.create has the fields of a config.json; model.tokenizer is the folder of a tokenizer.json, which
foretoken tokenizer makes of a text.

Examples:
  foretoken pretrain small.yaml
  foretoken pretrain --model.create config.json --model.tokenizer ./tokenizer --corpus.sources books/ --steps 5000`,
    )
}
