import { z } from 'zod'
import { amount, count, path, section, share } from './config-parts.js'

const format = z.enum(['text', 'jsonl', 'parquet']).optional().describe('where the file name does not tell')
const field = z.string().optional().describe('field that holds the text, or a path such as meta.text; default text')
const template = z.string().optional().describe('text over several fields instead, such as "{question}\\n{answer}"')
const unit = z
  .union([z.enum(['file', 'paragraph', 'line']), z.strictObject({ separator: z.string().min(1) })])
  .optional()
  .describe('what of a text file is a document: file (default), paragraph, line, or { separator: text }')

const source = z.union([
  path(),
  z.strictObject({
    path: z
      .union([path(), z.array(path()).min(1)])
      .describe('file, folder or pattern (data/**/*.jsonl.gz), or several'),
    format,
    field,
    template,
    unit,
  }),
  z.strictObject({
    dataset: z.string().min(1).describe('dataset of the Hugging Face Hub, organisation/name'),
    revision: z.string().optional().describe('branch, tag or commit; default main; a commit pins the data'),
    files: z.string().optional().describe('pattern over its files, such as data/train-*.parquet'),
    format,
    field,
    template,
    unit,
  }),
])

/** Files, folders, patterns and datasets; one may stand without a list. */
export const sources = () =>
  z.union([source, z.array(source).min(1)]).transform((given) => (Array.isArray(given) ? given : [given]))

/** The text. */
export const corpusConfig = section('the text to train on', {
  sources: sources()
    .optional()
    .describe('files, folders, patterns (text, JSONL, Parquet; plain, .gz, .zst) or datasets of the hub'),
  heldOut: z
    .number()
    .min(0)
    .lt(1)
    .default(0.05)
    .describe('share of documents, chosen by their hash, that is never trained on and serves evaluation'),
  shuffle: z.boolean().default(true).describe('shuffle files, and documents within a window, by the seed'),
  shuffleWindow: count().default(1024).describe('documents that shuffling holds in memory'),
  onBadDocument: z
    .enum(['error', 'skip'])
    .default('error')
    .describe('what a text does that the tokenizer cannot give back byte for byte'),
  epochs: count().optional().describe('passes over the corpus; as many as the steps need where left out'),
  onBadRecord: z
    .enum(['error', 'skip'])
    .default('error')
    .describe('what broken JSON, a missing field, invalid UTF-8 or an oversized record does; skipped ones are counted'),
  maxDocumentBytes: count().default(67_108_864).describe('longer documents are bad records; bytes'),
})

/** How the question is put. */
export const promptConfig = section('how the question is put to the model', {
  template: z
    .string()
    .default('v0')
    .describe("v0 to v6 of the paper's appendix D (v6 recommended), or a text with {context} in it"),
  chat: z
    .enum(['auto', 'always', 'never'])
    .default('auto')
    .describe("whether the model's chat template wraps the question; auto: where it has one"),
  system: z.string().optional().describe('system message for the chat template'),
  chatVariables: z.record(z.string(), z.unknown()).optional().describe('further variables of the chat template'),
  think: z.string().optional().describe('what opens the thought where the chat template does not; default <think>'),
})

/** Which positions are asked about. */
export const difficultyConfig = section('which positions of a document are asked about', {
  by: z
    .enum(['threshold', 'top-share', 'random'])
    .default('threshold')
    .describe(
      'threshold: entropy above minEntropy; top-share: the most uncertain share; random: any position ' +
        '(high-entropy choice is known to collapse on noisy text)',
    ),
  minEntropy: amount().default(0.5).describe('nats; positions above it are trained on (by: threshold)'),
  maxEntropy: amount().optional().describe('nats; positions above it are left out as unpredictable'),
  share: share().default(0.2).describe("share of each document's positions (by: top-share)"),
  topK: count().default(16).describe('most likely tokens over which the entropy is taken, renormalised'),
  minContext: count().default(1).describe('tokens that must stand before a position'),
  maxContext: count().optional().describe('tokens that may stand before it at most; else as the prompt has room'),
  maxPerDocument: count().default(4).describe('most positions of one document in a step; they share its prefix'),
  proxy: path()
    .optional()
    .describe('checkpoint that judges difficulty, same tokenizer; the model itself where left out'),
  index: path().optional().describe('index written by `foretoken filter`, so that a run need not score again'),
})
