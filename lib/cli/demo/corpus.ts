import { createWriteStream } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { isHeldOut } from '../../corpus/held-out.js'
import { PhiloxStream } from '../../corpus/philox.js'
import { documentHash } from '../../text/document.js'
import { writeTokenizerFiles } from '../../text/tokenizer-files.js'
import { drawSteps, type Problem, problemKinds, textOf, workOut } from './problems.js'
import { demoTokenizer, guessMark } from './tokenizer.js'

/** How the answers of the cold start come about; the rest are guesses at arbitrary positions. */
export interface TraceMixture {
  /** Share that work the answer out. */
  worked: number
  /** Share that guess it: `?` and the right answer. */
  guessed: number
  /** How often a step of a way goes wrong. */
  slip: number
}

/** How much text the demo makes. */
export interface DemoCorpusSizes {
  /** Documents for the first training. */
  pretrain: number
  /** Traces for the first training. */
  traces: number
  /** Documents for RPT and for its control. */
  train: number
  /** Documents that nothing is trained on. */
  heldOut: number
}

/** Share of the first training's documents that are single steps instead of problems. */
const stepsShare = 0.25

/** Random streams of the demo, one for each file. */
const streams = { pretrain: 1, traces: 2, train: 3, heldOut: 4 } as const
// Uses of random numbers below 64 belong to the engine, the corpus and the methods.
const use = 64

/** Share of problems, chosen by the hash of their data, that nothing is trained on. */
const heldOutShare = 0.1

/** Draws a problem of the training or of the held-out side: a problem is on one side whatever is asked about it. */
export function drawProblem(random: PhiloxStream, side: 'train' | 'held-out'): Problem {
  const kind = problemKinds[random.below(problemKinds.length)]!
  for (;;) {
    const problem = kind.draw(random)
    if (isHeldOut(documentHash(problem.title + problem.header), heldOutShare) === (side === 'held-out')) return problem
  }
}

/**
 * A reasoning trace as `sft` reads it: a document up to a fact's answer, then `<think>`, a thought and a box.
 * Worked traces teach how an answer is worked out, with slips; guesses teach the format, and a bad habit.
 */
export function drawTrace(random: PhiloxStream, mixture: TraceMixture): string {
  const problem = drawProblem(random, 'train')
  const draw = random.next() / 2 ** 32
  if (draw >= mixture.worked + mixture.guessed) return drawGuessAnywhere(problem, random)
  const asked = problem.facts.filter(({ steps }) => steps.length > 0)
  const fact = asked[random.below(asked.length)]!
  const before = problem.facts.slice(0, problem.facts.indexOf(fact))
  const context = `${problem.title}${problem.header}${before.map(({ question, answer }) => `${question}${answer} `).join('')}${fact.question}`
  if (draw >= mixture.worked) return answer(context, guessMark, String(fact.answer))
  const { way, result } = workOut(fact, mixture.slip, random)
  return answer(context, way, String(result))
}

/** One to three characters after any position behind the title. */
function drawGuessAnywhere(problem: Problem, random: PhiloxStream): string {
  const text = textOf(problem)
  const first = problem.title.length
  const at = first + random.below(text.length - first)
  return answer(text.slice(0, at), guessMark, text.slice(at, at + 1 + random.below(3)))
}

function answer(context: string, thought: string, prediction: string): string {
  return `${context}<think>${thought}</think>\\boxed{${prediction}}`
}

/** Writes `pretrain.jsonl`, `traces.jsonl`, `train.jsonl`, `held-out.jsonl` and `tokenizer/` into a folder. */
export async function writeDemoCorpus(
  folder: string,
  options: { seed: number; sizes: DemoCorpusSizes; mixture: TraceMixture },
): Promise<void> {
  const { seed, sizes, mixture } = options
  await mkdir(folder, { recursive: true })
  const stream = (of: keyof DemoCorpusSizes) =>
    new PhiloxStream(of === 'heldOut' ? heldOutSeed : seed, use, streams[of])
  const documents = (of: 'pretrain' | 'train' | 'heldOut') => {
    const random = stream(of)
    return () => {
      if (of === 'pretrain' && random.next() < stepsShare * 2 ** 32) return drawSteps(random)
      return textOf(drawProblem(random, of === 'heldOut' ? 'held-out' : 'train'))
    }
  }
  const traces = stream('traces')
  await writeTexts(join(folder, 'pretrain.jsonl'), sizes.pretrain, documents('pretrain'))
  await writeTexts(join(folder, 'traces.jsonl'), sizes.traces, () => drawTrace(traces, mixture))
  await writeTexts(join(folder, 'train.jsonl'), sizes.train, documents('train'))
  await writeTexts(join(folder, 'held-out.jsonl'), sizes.heldOut, documents('heldOut'))
  await writeTokenizerFiles(join(folder, 'tokenizer'), demoTokenizer)
}

// The same held-out problems for every seed, so that seeds can be compared.
const heldOutSeed = 9999

async function writeTexts(path: string, count: number, make: () => string): Promise<void> {
  function* lines() {
    for (let i = 0; i < count; ++i) yield `${JSON.stringify({ text: make() })}\n`
  }
  await pipeline(Readable.from(lines()), createWriteStream(path))
}
