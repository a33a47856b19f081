import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import type { RunConfig } from '../run/config-schema.js'
import { readConfigSource, resolveConfig } from '../run/load-config.js'
import type { Preset } from '../run/presets.js'
import { startRun } from '../run/run.js'
import { RunDirectory } from '../run/run-directory.js'
import { configKeysText, readConfigArguments } from './config-arguments.js'
import { printResult } from './print.js'
import { UsageError } from './usage-error.js'

interface TrainFlags {
  resume?: string | true
  allowChanges?: boolean
  overwrite?: boolean
  keys?: boolean
  json?: boolean
}

export function trainCommand(): Command {
  return runCommand('train', {}, '--model.path')
    .description('train a model on text: by reinforcement (rpt), next-token prediction (ntp) or traces (sft)')
    .addHelpText(
      'after',
      `
Every key of the config is also a flag; \`foretoken train --keys\` lists them all.

Examples:
  foretoken train run.yaml
  foretoken train run.yaml --optimizer.learning-rate 3e-6 --output runs/lr3e-6
  foretoken train --model.path ./model --corpus.sources 'data/*.jsonl.gz' --steps 200
  foretoken train --resume runs/lr3e-6`,
    )
}

/** A command that runs a config over a preset; `needs` are the flags that say which model, where there is no config. */
export function runCommand(name: string, preset: Preset, needs: string): Command {
  return new Command(name)
    .usage('[config.yaml] [--key value]... [options]')
    .option('--resume [run]', 'go on with a run, from its newest checkpoint, bit for bit')
    .option('--allow-changes', 'resume although config or data have changed')
    .option('--overwrite', 'replace a run that is in the output directory')
    .option('--keys', 'list every key of the config with its default')
    .option('--json', 'print the result as JSON')
    .allowUnknownOption()
    .allowExcessArguments()
    .action(async (_, command: Command) => {
      const options = command.opts<TrainFlags>()
      if (options.keys) {
        process.stdout.write(`${configKeysText()}\n`)
        return
      }
      const config = await configOf(command.args, options, { name, preset, needs })
      const { exitStatus, ...result } = await startRun(config, {
        resume: options.resume !== undefined,
        allowChanges: options.allowChanges ?? false,
        overwrite: options.overwrite ?? false,
      })
      process.exitCode = exitStatus
      if (options.json) printResult(true, result, () => '')
    })
}

/** The config of a new run, or that of the run to go on with; flags come last in either. */
async function configOf(
  args: readonly string[],
  { resume }: TrainFlags,
  { name, preset, needs }: { name: string; preset: Preset; needs: string },
): Promise<RunConfig> {
  const given = readConfigArguments(args)
  let { file } = given
  let run: string | undefined
  if (typeof resume === 'string') {
    // `--resume run.yaml` is the config of a run whose output directory it names.
    const isFile = (await stat(resume).catch(() => undefined))?.isFile() === true
    if (isFile && file === undefined) file = resume
    else run = resume
  }
  if (run !== undefined && file === undefined) {
    const directory = new RunDirectory(run)
    await directory.readManifest()
    const config = resolveConfig({ source: await readConfigSource(directory.config), flags: given.flags })
    return { ...config, output: run }
  }
  if (file === undefined && given.flags.length === 0) {
    throw new UsageError(`a config is missing: foretoken ${name} run.yaml, or at least ${needs} and --corpus.sources`)
  }
  if (file !== undefined && /\.(txt|md|jsonl|ndjson|parquet|gz|zst)$/.test(file)) {
    throw new UsageError(`${file} is text, not a config; text is given with --corpus.sources ${file}`)
  }
  const source = file === undefined ? undefined : await readConfigSource(file)
  const config = resolveConfig({ preset, ...(source && { source }), flags: given.flags })
  if (resume !== undefined && run === undefined && config.output === undefined) {
    throw new UsageError(`say which run to resume: --resume ${join('runs', '<name>')}`)
  }
  return run === undefined ? config : { ...config, output: run }
}
