import { expect, test } from 'vitest'
import { makeTrace } from '../../lib/algorithm/traces.js'
import { Prompt } from '../../lib/text/prompt.js'
import { byteLevelTokenizer } from '../text/small-tokenizers.js'

const tokenizer = byteLevelTokenizer()
const record = { text: '2+2=<think>4</think>\\boxed{4}', hash: 'f'.repeat(64) }
const show = (tokens: Int32Array) => Array.from(tokens, (id) => tokenizer.decode([id]))

test('a trace asks as rpt asks, and its loss is on thought, answer and end alone', () => {
  const prompt = Prompt.compile(tokenizer, { template: 'Q:{context}A:' })
  const { tokens, weights } = makeTrace(tokenizer, record, { prompt })
  expect(show(tokens)).toEqual([...'Q:2+2=A:', '<think>', '4', '</think>', ...'\\boxed{4}', '</s>'])
  expect([...weights]).toEqual([...new Array(9).fill(0), ...new Array(12).fill(1)])
})

test('the context can be learned too, the words around it and the opened thought never', () => {
  const prompt = Prompt.compile(tokenizer, { template: '{context}' })
  const { tokens, weights } = makeTrace(tokenizer, record, { prompt, contextWeight: 0.5, end: false })
  expect(show(tokens)).toEqual([...'2+2=', '<think>', '4', '</think>', ...'\\boxed{4}'])
  // Nothing precedes the first token.
  expect([...weights.subarray(0, 6)]).toEqual([0, 0.5, 0.5, 0.5, 0, 1])
})

test('a text without the separator is refused, naming it', () => {
  const prompt = Prompt.compile(tokenizer, { template: '{context}' })
  expect(() => makeTrace(tokenizer, { ...record, text: 'no thought' }, { prompt })).toThrow(/ffffffffffff.*no thought/)
  const { tokens } = makeTrace(tokenizer, { ...record, text: 'a|b' }, { prompt, separator: '|', end: false })
  expect(show(tokens)).toEqual(['a', '<think>', 'b'])
})
