import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { drawProblem, drawTrace, writeDemoCorpus } from '../../lib/cli/demo/corpus.js'
import { problemKinds, stepsTitle, textOf } from '../../lib/cli/demo/problems.js'
import { demoConfig } from '../../lib/cli/demo/run-demo.js'
import { guessMark } from '../../lib/cli/demo/tokenizer.js'
import { PhiloxStream } from '../../lib/corpus/philox.js'
import { extractBox } from '../../lib/reward/extract-box.js'
import { Document } from '../../lib/text/document.js'
import { Tokenizer } from '../../lib/text/tokenizer.js'

const sizes = { pretrain: 60, traces: 60, train: 60, heldOut: 30 }
const mixture = { worked: 0.4, guessed: 0.5, slip: 0.05 }
const answerPattern = /^(.*)<think>(.*)<\/think>\\boxed\{(.*)\}$/

/** One operation, written anew from what the titles say. */
function operate(value: number, operator: string, operand: number): number {
  if (operator === '~') return Math.abs(value - operand)
  const result = operator === '+' ? value + operand : operator === '-' ? value - operand : value * operand
  return ((result % 10) + 10) % 10
}

/** Reads a document (or its beginning) back: data, and facts with the answers they should have. */
function solve(text: string) {
  const [, title, header, rest] = /^(\D+(?:10)?: )([^.]*)\. (.*?)\.?$/.exec(text)!
  const entries = header!.split(' ').map((entry) => [entry[0]!, entry.slice(1)] as const)
  const data = new Map(entries)
  const facts = rest!.split(' ').map((fact) => {
    const [question, answer] = fact.split('=') as [string, string]
    let value: number
    if (title!.startsWith('Ops')) {
      value = Number(question[0])
      for (const name of question.slice(1))
        value = operate(value, data.get(name)![0]!, Number(data.get(name)!.slice(1)))
    } else {
      value = Number(data.get(question[0]!))
      for (let i = 1; i < question.length; i += 2) {
        value = operate(value, question[i]!, Number(data.get(question[i + 1]!)))
      }
    }
    return { question, answer, solution: String(value) }
  })
  return { title: title!, header: header!, facts }
}

const problemOf = (text: string) => {
  const { title, header } = solve(text)
  return title + header
}

describe("the demo's corpus", () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'foretoken-demo-corpus-'))
    await writeDemoCorpus(join(folder, 'a'), { seed: 0, sizes, mixture })
    await writeDemoCorpus(join(folder, 'b'), { seed: 0, sizes, mixture })
    await writeDemoCorpus(join(folder, 'c'), { seed: 1, sizes, mixture })
  })
  afterAll(() => rm(folder, { recursive: true }))
  const read = (name: string) => readFile(join(folder, name), 'utf8')
  const texts = async (name: string) =>
    (await read(name))
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { text: string }).text)

  test('every answer of a document follows from its data', async () => {
    for (const text of await texts('a/train.jsonl')) {
      for (const { question, answer, solution } of solve(text).facts)
        expect(answer, `${question} in ${text}`).toBe(solution)
    }
  })

  test('documents of single steps are right, and too short for a question about their random digits', async () => {
    const tokenizer = await Tokenizer.open(join(folder, 'a', 'tokenizer'))
    const { difficulty } = await demoConfig('rpt', undefined, [])
    const documents = (await texts('a/pretrain.jsonl')).filter((text) => text.startsWith(stepsTitle))
    expect(documents.length).toBeGreaterThan(4)
    for (const text of documents) {
      const steps = text.slice(stepsTitle.length, -1).split(' ')
      for (const step of steps) {
        expect(step).toBe(`${step.slice(0, 4)}${operate(Number(step[0]), step[1]!, Number(step[2]))}`)
      }
      const beforeLastAnswer = tokenizer.encode(text).length - 2
      expect(beforeLastAnswer).toBeLessThanOrEqual(difficulty.minContext)
    }
    expect((await texts('a/train.jsonl')).some((text) => text.startsWith(stepsTitle))).toBe(false)
  })

  test('documents of a kind differ in data and answers only', () => {
    const random = new PhiloxStream(3, 100, 0)
    for (const kind of problemKinds) {
      const masked = new Set(
        Array.from({ length: 20 }, () => {
          const { facts } = kind.draw(random)
          return facts.map(({ question }) => question).join(' ')
        }),
      )
      expect(masked.size).toBe(1)
    }
  })

  test('no problem is on both sides, whatever the seed', async () => {
    const held = new Set((await texts('a/held-out.jsonl')).map(problemOf))
    expect(held.size).toBeGreaterThan(20)
    const random = new PhiloxStream(1, 101, 0)
    const trained = Array.from({ length: 3000 }, () => problemOf(textOf(drawProblem(random, 'train'))))
    const drawn = Array.from({ length: 300 }, () => problemOf(textOf(drawProblem(random, 'held-out'))))
    for (const problem of drawn) held.add(problem)
    expect(trained.filter((problem) => held.has(problem))).toEqual([])
  })

  test('the same seed gives the same bytes; another seed gives other text and the same held-out problems', async () => {
    for (const file of [
      'pretrain.jsonl',
      'traces.jsonl',
      'train.jsonl',
      'held-out.jsonl',
      'tokenizer/tokenizer.json',
    ]) {
      expect(await read(`b/${file}`)).toBe(await read(`a/${file}`))
    }
    for (const file of ['pretrain.jsonl', 'traces.jsonl', 'train.jsonl']) {
      expect(await read(`c/${file}`)).not.toBe(await read(`a/${file}`))
    }
    expect(await read('c/held-out.jsonl')).toBe(await read('a/held-out.jsonl'))
    expect(await read('a/train.jsonl')).not.toBe(await read('a/pretrain.jsonl'))
  })

  test('a worked trace without slips goes from the data to the right answer, step by step', () => {
    const random = new PhiloxStream(5, 102, 0)
    for (let i = 0; i < 200; ++i) {
      const [, context, thought, box] = answerPattern.exec(drawTrace(random, { worked: 1, guessed: 0, slip: 0 }))!
      const { header, facts } = solve(`${context}?`)
      expect(box).toBe(facts.at(-1)!.solution)
      let value: string | undefined
      for (const step of thought!.split(' ')) {
        const [, name, from, operation, result] = /^([a-e]?)(\d)(\S+)=(\d)$/.exec(step)!
        if (value === undefined && name !== '') expect(header).toContain(`${name}${from}`)
        else if (value !== undefined) expect(from).toBe(value)
        // `c-3` has its name first, `~e3` its operator.
        const [operator, named] = /^[a-e]/.test(operation!)
          ? [operation![1]!, operation!]
          : [operation![0]!, operation!.slice(1)]
        expect(header).toContain(named)
        value = String(operate(Number(from), operator, Number(operation!.at(-1))))
        expect(result).toBe(value)
      }
      expect(value).toBe(box)
    }
  })

  test('the shares of worked traces, guesses and slips are those asked for', () => {
    const random = new PhiloxStream(6, 103, 0)
    const count = 4000
    const traces = Array.from({ length: count }, () => answerPattern.exec(drawTrace(random, mixture))!)
    const worked = traces.filter(([, , thought]) => thought !== guessMark)
    // Within four standard errors.
    expect(Math.abs(worked.length / count - 0.4)).toBeLessThan(4 * Math.sqrt(0.24 / count))
    const steps = worked.flatMap(([, , thought]) => thought!.split(' '))
    const wrong = steps.filter((step) => {
      const [, from, operation, result] = /^[a-e]?(\d)(\S+)=(\d)$/.exec(step)!
      return String(operate(Number(from), operation!.replaceAll(/[a-e\d]/g, ''), Number(operation!.at(-1)))) !== result
    })
    // A random digit is the right one now and then.
    expect(Math.abs(wrong.length / steps.length - 0.045)).toBeLessThan(4 * Math.sqrt(0.045 / steps.length))
    const guessed = traces.filter(([, context, thought]) => thought === guessMark && context!.endsWith('='))
    for (const [, context, , box] of guessed.slice(0, 200)) {
      const last = solve(`${context}?`).facts.at(-1)!
      expect(box!.startsWith(last.solution), `${context}${box}`).toBe(true)
    }
  })

  test('the tokenizer cuts at characters, keeps titles whole and gives every byte back', async () => {
    const tokenizer = await Tokenizer.open(join(folder, 'a', 'tokenizer'))
    for (const text of [...(await texts('a/train.jsonl')), ...(await texts('a/held-out.jsonl'))]) {
      const document = Document.tokenize(tokenizer, text)
      const { title } = problemKinds.find((kind) => text.startsWith(kind.title))!
      expect(document.length).toBe(text.length - title.length + 1)
    }
    const answer = tokenizer.encode('a5~b2=3</think>\\boxed{3}', { special: true, continues: true })
    expect(answer.length).toBe('a5~b2=3'.length + 4)
    expect(Buffer.from(extractBox(tokenizer.bytes.join(answer))!).toString()).toBe('3')
    expect(tokenizer.eosId).toBe(tokenizer.vocabSize - 1)
  })

  test('model, tokenizer and configs belong together', async () => {
    const tokenizer = await Tokenizer.open(join(folder, 'a', 'tokenizer'))
    const pretrain = await demoConfig('pretrain', undefined, [])
    const create = pretrain.model.create as Record<string, unknown>
    expect(create.vocab_size).toBe(tokenizer.vocabSize)
    expect(create.eos_token_id).toBe(tokenizer.eosId)
    const rpt = await demoConfig('rpt', undefined, [])
    const control = await demoConfig('control', undefined, [])
    expect(rpt.evaluation.forbidden).toEqual([tokenizer.idOf(guessMark)])
    expect(control.corpus.sources).toEqual(rpt.corpus.sources)
    // The same questions, put in the same way, or the arms could not be compared.
    for (const key of ['sources', 'documents', 'positionsPerDocument', 'temperature', 'samples'] as const) {
      expect(control.evaluation[key]).toEqual(rpt.evaluation[key])
    }
    expect(control.difficulty.minContext).toBe(rpt.difficulty.minContext)
    expect(control.prompt).toEqual(rpt.prompt)
    expect(pretrain.prompt).toEqual(rpt.prompt)
  })
})
