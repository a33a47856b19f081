#!/usr/bin/env node
import { Command, CommanderError } from 'commander'
import { version } from '../version.js'
import { commands } from './commands.js'
import { UsageError } from './usage-error.js'

/** Runs the program and gives its exit status: 0, 1 for a failure, 2 for a command line that makes no sense. */
async function main(args: readonly string[]): Promise<number> {
  const program = new Command('foretoken')
    .description(
      'Reinforcement pre-training: a model reads text, thinks, predicts what comes next, and learns from it.',
    )
    .version(version)
    .showHelpAfterError('(--help says more)')
  for (const create of commands) program.addCommand(create())
  // commander ends the process by itself otherwise; settings are not inherited by commands that are added.
  for (const command of [program, ...program.commands]) {
    command.exitOverride().showHelpAfterError('(--help says more)').configureHelp({ helpWidth: 100 })
  }
  try {
    await program.parseAsync(args, { from: 'user' })
    return Number(process.exitCode ?? 0)
  } catch (error) {
    return report(error)
  }
}

function report(error: unknown): number {
  // commander has printed its own message, or the help that was asked for.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  const { code, message, stack } = error as Error & { code?: unknown }
  process.stderr.write(`foretoken: error${typeof code === 'string' ? ` ${code}` : ''}: ${message}\n`)
  if (process.env.FORETOKEN_DEBUG) process.stderr.write(`${stack}\n`)
  if (error instanceof UsageError) {
    process.stderr.write('(--help says more)\n')
    return 2
  }
  return 1
}

process.exitCode = await main(process.argv.slice(2))
