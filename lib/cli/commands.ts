import type { Command } from 'commander'
import { benchCommand } from './bench.js'
import { buildCommand } from './build.js'
import { demoCommand } from './demo.js'
import { doctorCommand } from './doctor.js'
import { evaluateCommand } from './evaluate.js'
import { exportCommand } from './export.js'
import { filterCommand } from './filter.js'
import { pretrainCommand } from './pretrain.js'
import { sampleCommand } from './sample.js'
import { scoreCommand } from './score.js'
import { tokenizerCommand } from './tokenizer.js'
import { trainCommand } from './train.js'

/** Every command, in the order of the help. */
export const commands: readonly (() => Command)[] = [
  demoCommand,
  trainCommand,
  pretrainCommand,
  tokenizerCommand,
  evaluateCommand,
  filterCommand,
  sampleCommand,
  scoreCommand,
  exportCommand,
  doctorCommand,
  benchCommand,
  buildCommand,
]
