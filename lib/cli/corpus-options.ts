import { type Command, Option } from 'commander'
import type { CorpusSource } from '../corpus/corpus.js'
import type { FileFormat } from '../corpus/files.js'

/** Flags of commands that read text files. */
export interface CorpusFlags {
  format?: FileFormat
  field?: string
  template?: string
  unit?: 'file' | 'paragraph' | 'line'
  skipBad?: boolean
}

/** Adds them. */
export function addCorpusOptions(command: Command): Command {
  return command
    .addOption(new Option('--format <name>', 'where the file name does not tell').choices(['text', 'jsonl', 'parquet']))
    .option('--field <name>', 'field of a record that holds the text (default: text)')
    .option('--template <text>', 'text over several fields instead, such as "{question} {answer}"')
    .addOption(
      new Option('--unit <name>', 'what of a text file is a document (default: file)').choices([
        'file',
        'paragraph',
        'line',
      ]),
    )
    .option('--skip-bad', 'leave out bad records and texts that the tokenizer cannot give back; they are counted')
}

/** The source that arguments and flags name. */
export function corpusSource(paths: readonly string[], flags: CorpusFlags): CorpusSource {
  const { format, field, template, unit } = flags
  return {
    path: paths,
    ...(format !== undefined && { format }),
    ...(field !== undefined && { field }),
    ...(template !== undefined && { template }),
    ...(unit !== undefined && { unit }),
  }
}
