import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { StepOptions } from '../../lib/index.js'

/** What transformers computes in float64 for a small checkpoint: a common form of the two kinds of expected.json. */
export interface ExpectedModel {
  name: string
  /** The checkpoint. */
  directory: string
  /** The same config in the spelling of another version of transformers. */
  otherConfig: string | undefined
  sequences: number[][]
  /** Rows of logits that follow a token of a sequence. */
  logits: { sequence: number; position: number; row: number[] }[]
  /** By temperature, sequence and token; the first token of a sequence has none. */
  logprobs: { temperature: number; values: (number | null)[][] }[]
  entropies: { temperature: number; values: (number | null)[][] }[]
  /** Of the 16 most probable tokens. */
  topEntropies: (number | null)[][] | undefined
  /** Mean cross-entropy of all next tokens. */
  loss: number
  gradNorm: number
  gradients: { name: string; norm: number; indices: number[]; values: number[] }[]
  /** Losses after 0, 1, 2, … updates. */
  adamw: { options: StepOptions; losses: number[]; gradNorms: number[] }
  greedy: { prompt: number[]; tokens: number[] }[]
}

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url))
const sharedModels = fileURLToPath(new URL('../../../shared/models/', import.meta.url))

function readJson(path: string) {
  return JSON.parse(readFileSync(path, 'utf8'))
}

interface FixtureFile {
  input_ids: number[][]
  logit_positions: number[]
  logits: number[][][]
  logprobs: Record<string, (number | null)[][]>
  entropies: Record<string, (number | null)[][]>
  entropy_top16: (number | null)[][]
  loss: number
  grad_total_norm: number
  grads: Record<string, { norm: number; indices: number[]; values: number[] }>
  adamw: {
    lr: number
    betas: [number, number]
    eps: number
    weight_decay: number
    losses: number[]
    grad_norms: number[]
  }
  greedy: { prompt_length: number; tokens: number[] }
}

/** The models that scripts/make-fixtures.py makes. */
export function fixtureModels(): ExpectedModel[] {
  return readdirSync(fixtures)
    .filter((name) => existsSync(`${fixtures}${name}/expected.json`))
    .map((name) => {
      const directory = `${fixtures}${name}`
      const file: FixtureFile = readJson(`${directory}/expected.json`)
      const byTemperature = (values: Record<string, (number | null)[][]>) =>
        Object.entries(values).map(([temperature, rows]) => ({ temperature: Number(temperature), values: rows }))
      return {
        name,
        directory,
        otherConfig: `${directory}/config_v4.json`,
        sequences: file.input_ids,
        logits: file.logits.flatMap((rows, sequence) =>
          rows.map((row, j) => ({ sequence, position: file.logit_positions[j]!, row })),
        ),
        logprobs: byTemperature(file.logprobs),
        entropies: byTemperature(file.entropies),
        topEntropies: file.entropy_top16,
        loss: file.loss,
        gradNorm: file.grad_total_norm,
        gradients: Object.entries(file.grads).map(([parameter, gradient]) => ({ name: parameter, ...gradient })),
        adamw: {
          options: {
            learningRate: file.adamw.lr,
            betas: file.adamw.betas,
            epsilon: file.adamw.eps,
            weightDecay: file.adamw.weight_decay,
          },
          losses: file.adamw.losses,
          gradNorms: file.adamw.grad_norms,
        },
        greedy: [{ prompt: file.input_ids[0]!.slice(0, file.greedy.prompt_length), tokens: file.greedy.tokens }],
      }
    })
}

interface SharedFile {
  input_ids: number[][]
  logits_first_row?: number[][]
  logits_positions?: number[]
  loss: number
  grad_total_norm: number
  grads: Record<string, { norm: number; head: number[] }>
  adamw_losses: number[]
}

interface StoriesFile {
  cases: { prompt_ids: number[]; greedy_ids: number[]; last_prompt_logits: number[]; greedy_token_logprobs: number[] }[]
}

/** Models beside the repository, made by others with the same tools; none where they are not there. */
export function neighbouringModels(): ExpectedModel[] {
  if (!existsSync(sharedModels)) return []
  const random = readdirSync(sharedModels)
    .filter((name) => existsSync(`${sharedModels}${name}/expected.json`) && name !== 'stories260K')
    .map((name) => {
      const directory = `${sharedModels}${name}`
      return { ...fromShared(name, directory, readJson(`${directory}/expected.json`)) }
    })
  return [...random, stories260K()]
}

function fromShared(name: string, directory: string, file: SharedFile): ExpectedModel {
  const otherConfig = `${directory}/config_transformers_v5.json`
  return {
    name,
    directory,
    otherConfig: existsSync(otherConfig) ? otherConfig : undefined,
    sequences: file.input_ids,
    logits: (file.logits_first_row ?? []).map((row, j) => ({ sequence: 0, position: file.logits_positions![j]!, row })),
    logprobs: [],
    entropies: [],
    topEntropies: undefined,
    loss: file.loss,
    gradNorm: file.grad_total_norm,
    gradients: Object.entries(file.grads).map(([parameter, { norm, head }]) => ({
      name: parameter,
      norm,
      indices: head.map((_, i) => i),
      values: head,
    })),
    adamw: {
      options: { learningRate: 1e-3, betas: [0.9, 0.95], epsilon: 1e-8, weightDecay: 0.1, decayAll: true },
      losses: file.adamw_losses,
      gradNorms: [],
    },
    greedy: [],
  }
}

/** A model that was really trained: its greedy continuation is the test of llama2.c. */
function stories260K(): ExpectedModel {
  const directory = `${sharedModels}stories260K`
  const training = fromShared('stories260K', `${directory}/hf`, readJson(`${directory}/expected_train.json`))
  const { cases }: StoriesFile = readJson(`${directory}/expected.json`)
  const first = training.sequences.length
  return {
    ...training,
    logits: cases.map(({ prompt_ids, last_prompt_logits }, i) => ({
      sequence: first + i,
      position: prompt_ids.length - 1,
      row: last_prompt_logits,
    })),
    sequences: [...training.sequences, ...cases.map(({ greedy_ids }) => greedy_ids)],
    logprobs: [
      {
        temperature: 1,
        values: [
          ...training.sequences.map(() => []),
          ...cases.map(({ greedy_token_logprobs }) => [null, ...greedy_token_logprobs]),
        ],
      },
    ],
    greedy: cases.map(({ prompt_ids, greedy_ids }) => ({
      prompt: prompt_ids,
      tokens: greedy_ids.slice(prompt_ids.length),
    })),
  }
}

/** The sequences that the losses and gradients are of. */
export function trainingSequences(model: ExpectedModel): number[][] {
  return model.sequences.slice(0, 2)
}
