import { type DifficultySplit, difficultySplits } from '../../corpus/positions.js'
import type { EvaluationSample } from '../../evaluate/types.js'
import { readJsonLines } from '../../run/json-lines-log.js'
import type { RunDirectory } from '../../run/run-directory.js'
import type { SampleLine } from '../../run/run-report.js'
import type { StepMetrics } from '../../train/types.js'
import { problemKinds } from './problems.js'

/** What one model answers on one split of difficulty; shares from 0 to 1. */
export interface SplitFigures {
  positions: number
  /** Without a thought: the most likely next token. */
  prediction: number
  /** After a thought, sampled. */
  reasoning: number
  /** After a thought that may not be a guess; only where that was measured. */
  forced: number | null
  /** Mean number of tokens of an answer. */
  length: number
  withoutBox: number
}

export type DemoEvaluation = Record<DifficultySplit, SplitFigures | null>

/** What an arm spent, evaluations left out. */
export interface ArmCost {
  steps: number
  tokens: number
  flops: number
  seconds: number
}

/** An answer after RPT, and one to the same question before it. */
export interface Thought {
  context: string
  truth: string
  before: string
  after: string
  prediction: string | null
  right: boolean
}

/** What a demo found for one seed. */
export interface DemoResult {
  seed: number
  quick: boolean
  before: DemoEvaluation
  after: DemoEvaluation
  control: DemoEvaluation
  /** Mean tokens of an answer, step by step of RPT. */
  lengths: (number | null)[]
  rewards: (number | null)[]
  cost: { pretrain: ArmCost; rpt: ArmCost; control: ArmCost }
  thoughts: Thought[]
  /** Folder of the model after RPT. */
  model: string
}

/** The evaluation in a line of metrics; null for a split that has no positions. */
export function evaluationOf(metrics: StepMetrics | undefined): DemoEvaluation {
  const evaluation = {} as DemoEvaluation
  for (const split of Object.keys(difficultySplits) as DifficultySplit[]) {
    const at = (name: string) => metrics?.[`eval/${split}/${name}`]
    const positions = at('positions')
    evaluation[split] =
      positions === undefined
        ? null
        : {
            positions,
            prediction: at('prediction')!,
            reasoning: at('reasoning')!,
            forced: at('forced') ?? null,
            length: at('length')!,
            withoutBox: at('without_box')!,
          }
  }
  return evaluation
}

/** What the steps of an arm took. */
export function armCost(metrics: readonly StepMetrics[]): ArmCost {
  const last = metrics.at(-1)!
  return {
    steps: last.step,
    tokens: last.num_tokens,
    flops: last.total_flops,
    seconds: metrics.reduce((sum, { step_time = 0 }) => sum + step_time, 0),
  }
}

/** One answer of the last evaluation for each kind of problem, a right one where there is one. */
export async function readThoughts(run: RunDirectory): Promise<Thought[]> {
  const samples = await readJsonLines<SampleLine>(run.samples)
  const evaluated = samples.filter((sample) => sample.kind === 'evaluation')
  const last = evaluated.at(-1)?.step
  const after = evaluated.filter(({ step }) => step === last)
  const before = new Map(evaluated.filter(({ step }) => step === 0).map((sample) => [questionOf(sample), sample]))
  return problemKinds.flatMap(({ title }) => {
    const answers = after.filter(({ context }) => context.startsWith(title))
    const chosen = answers.find(({ right }) => right) ?? answers[0]
    if (!chosen) return []
    const { context, truth, thought, prediction, right } = chosen
    return [{ context, truth, before: shown(before.get(questionOf(chosen))), after: thought, prediction, right }]
  })
}

function questionOf({ document, position }: EvaluationSample): string {
  return `${document} ${position}`
}

function shown(sample: EvaluationSample | undefined): string {
  return sample ? `${sample.thought} → ${sample.prediction ?? 'no answer'}` : '–'
}
