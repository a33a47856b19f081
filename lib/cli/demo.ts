import { join, resolve } from 'node:path'
import { Command } from 'commander'
import { ForetokenError } from '../engine/errors.js'
import { jsonLine } from '../run/json-lines-log.js'
import { shown } from '../run/run-directory.js'
import { writeDemoReport } from './demo/demo-report.js'
import type { DemoResult } from './demo/demo-result.js'
import { resultText } from './demo/demo-text.js'
import { readDemoResult, removeDemo, runDemo } from './demo/run-demo.js'
import { UsageError } from './usage-error.js'

interface DemoFlags {
  out: string
  seed: string
  seeds: string
  quick?: boolean
  overwrite?: boolean
  json?: boolean
}

export function demoCommand(): Command {
  return new Command('demo')
    .description('train a small model from nothing and watch it learn to think before it predicts')
    .option('--out <folder>', 'where corpus, runs, model and report go', 'runs/demo')
    .option('--seed <number>', 'of everything that is drawn', '0')
    .option('--seeds <number>', 'so many seeds, one after another, from --seed on', '1')
    .option('--quick', 'a few steps only, to see that all parts work')
    .option('--overwrite', 'start anew where a demo has already been run')
    .option('--json', 'print the results as JSON')
    .addHelpText(
      'after',
      `
Interrupted with Ctrl-C, the demo goes on where it stopped when it is started again. Its configs are in examples/demo/:
the same steps work one by one with \`foretoken pretrain\` and \`foretoken train\`.`,
    )
    .action(async (flags: DemoFlags) => {
      const [seed, seeds] = [wholeNumber('--seed', flags.seed, 0), wholeNumber('--seeds', flags.seeds, 1)]
      const { quick = false } = flags
      const out = resolve(flags.out)
      const say = (sentence: string) => process.stderr.write(`\n${sentence}\n`)
      const results: DemoResult[] = []
      for (let i = 0; i < seeds; ++i) {
        // The usual demo is not hidden in a folder of its own.
        const folder = seeds === 1 && seed === 0 ? out : join(out, `seed-${seed + i}`)
        if (flags.overwrite) await removeDemo(folder)
        if (seeds > 1) say(`seed ${seed + i}`)
        const known = await readDemoResult(folder)
        if (known && known.quick !== quick) {
          const kind = known.quick ? 'a --quick demo' : 'a demo that was not --quick'
          throw new ForetokenError('INVALID_CONFIG', `${folder} holds ${kind}; choose another --out, or --overwrite it`)
        }
        if (known) say(`${shown(folder)} has a demo that is complete; --overwrite starts anew`)
        const options = { seed: seed + i, folder, quick, stream: process.stderr, say }
        const result = known ?? (await runDemo(options))
        if ('exitStatus' in result) {
          say('start the demo again to go on')
          process.exitCode = result.exitStatus
          return
        }
        results.push(result)
      }
      const report = join(out, 'report.html')
      await writeDemoReport(report, results)
      process.stdout.write(flags.json ? `${jsonLine(results)}\n` : `\n${resultText(results)}\n`)
      say(`report: ${shown(report)} · model: ${shown(results[0]!.model)}`)
    })
}

function wholeNumber(name: string, text: string, lowest: number): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < lowest) {
    throw new UsageError(`${name} is ${JSON.stringify(text)}; it must be a whole number of at least ${lowest}`)
  }
  return value
}
