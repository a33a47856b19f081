import type { PhiloxStream } from '../../corpus/philox.js'

/** One thing that a document says: `b~d~e~a=5`. */
export interface Fact {
  /** Up to the equals sign, that included. */
  question: string
  /** One digit. */
  answer: number
  /** The way to the answer, an operation each; none where it is only to be looked up. */
  steps: Step[]
}

/** One operation of a way: `6c-3=3`, with the running value 6 and the operand as the header has it. */
export interface Step {
  /** The running value before it; the first of a way may come from the header, with its name: `d6`. */
  from: string
  /** What is done to it: `c-3`, or `~e3`. */
  operation: string
  /** The running value after it, from what it was before. */
  apply: (value: number) => number
  /** What the way begins with; only of the first step. */
  start?: number
}

/** A problem: random data, and what follows from them. */
export interface Problem {
  /** One token: `Gaps: `. */
  title: string
  /** The data, `a5 b6 c5 d9 e3. `: nobody can predict them. */
  header: string
  facts: Fact[]
}

/** A kind of problem. The questions are the same in all documents of a kind: only data and answers differ. */
export interface ProblemKind {
  title: string
  draw: (random: PhiloxStream) => Problem
}

/**
 * Chains of operations that do not commute and do not associate, so that no network of a few layers can answer them in
 * one pass; each step alone is one look-up in a table of 100 entries, which the short facts teach.
 */
export const problemKinds: readonly ProblemKind[] = [
  variables('Gaps: ', 0, ['d', 'a~c', 'b~d~e~a', 'c~a~e~b~d']),
  variables('Left to right mod 10: ', 1, ['c', 'a*d', 'c+e', 'b-d', 'b+e*c-a', 'd*b-a*c+e']),
  operations('Ops mod 10: ', ['1a', '2bcd', '3dabc', '7cadb']),
]

const operators: Record<string, (value: number, operand: number) => number> = {
  '+': (value, operand) => (value + operand) % 10,
  '-': (value, operand) => (value - operand + 10) % 10,
  '*': (value, operand) => (value * operand) % 10,
  // The gap between two digits.
  '~': (value, operand) => Math.abs(value - operand),
}

/**
 * A document of single steps, `Steps mod 10: 3+8=1 7~4=3 5*9=5.`: what the ways of the other kinds are made of. It is so short
 * that no position in it that is random has the context of 17 tokens that questions need.
 */
export function drawSteps(random: PhiloxStream): string {
  const steps = Array.from({ length: 3 }, () => {
    const [value, operand] = [random.below(10), random.below(10)]
    const operator = '+-*~'[random.below(4)]!
    return `${value}${operator}${operand}=${operators[operator]!(value, operand)}`
  })
  return `${stepsTitle}${steps.join(' ')}.`
}

/** One token, as the titles of problems are. */
export const stepsTitle = 'Steps mod 10: '

/** Named digits from `smallest` to 9, and expressions over them, read strictly from left to right. */
function variables(title: string, smallest: number, expressions: readonly string[]): ProblemKind {
  return {
    title,
    draw(random) {
      const data = new Map(['a', 'b', 'c', 'd', 'e'].map((name) => [name, smallest + random.below(10 - smallest)]))
      const named = (name: string) => `${name}${data.get(name)}`
      const facts = expressions.map((expression) => {
        const steps: Step[] = []
        for (let at = 1; at < expression.length; at += 2) {
          const operand = expression[at + 1]!
          const operator = operators[expression[at]!]!
          const first = at === 1
          steps.push({
            from: first ? named(expression[0]!) : '',
            operation: `${expression[at]}${named(operand)}`,
            apply: (value) => operator(value, data.get(operand)!),
            ...(first && { start: data.get(expression[0]!)! }),
          })
        }
        return factOf(expression, steps, data.get(expression[0]!)!)
      })
      return { title, header: `${[...data.keys()].map(named).join(' ')}. `, facts }
    },
  }
}

/** Named operations; `2bcd` is 2, then b, then c, then d. */
function operations(title: string, words: readonly string[]): ProblemKind {
  return {
    title,
    draw(random) {
      const data = new Map(
        ['a', 'b', 'c', 'd'].map((name) => [name, { operator: '+-*'[random.below(3)]!, operand: 1 + random.below(9) }]),
      )
      const named = (name: string) => `${name}${data.get(name)!.operator}${data.get(name)!.operand}`
      const facts = words.map((word) => {
        const start = Number(word[0])
        const steps = [...word.slice(1)].map((name, i): Step => {
          const { operator, operand } = data.get(name)!
          return {
            from: '',
            operation: named(name),
            apply: (value) => operators[operator]!(value, operand),
            ...(i === 0 && { start }),
          }
        })
        return factOf(word, steps, start)
      })
      return { title, header: `${[...data.keys()].map(named).join(' ')}. `, facts }
    },
  }
}

function factOf(question: string, steps: Step[], start: number): Fact {
  return { question: `${question}=`, steps, answer: steps.reduce((value, { apply }) => apply(value), start) }
}

/** The document of a problem: `Gaps: a5 b6 c5 d9 e3. d=9 a~c=0 b~d~e~a=5 c~a~e~b~d=6.` */
export function textOf({ title, header, facts }: Problem): string {
  return `${title}${header}${facts.map(({ question, answer }) => `${question}${answer}`).join(' ')}.`
}

/**
 * A way to a fact's answer, `b6~d9=3 3~e3=0 0~a5=5`, and what comes out of it. With probability `slip` a step's result
 * is a random digit, and the way goes on from there.
 */
export function workOut({ steps }: Fact, slip: number, random: PhiloxStream): { way: string; result: number } {
  let value = 0
  const lines = steps.map(({ from, operation, apply, start }) => {
    value = start ?? value
    const before = from === '' ? String(value) : from
    value = apply(value)
    if (random.next() < slip * 2 ** 32) value = random.below(10)
    return `${before}${operation}=${value}`
  })
  return { way: lines.join(' '), result: value }
}
