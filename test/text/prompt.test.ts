import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { ChatTemplate } from '../../lib/text/chat-template.js'
import { Document } from '../../lib/text/document.js'
import { Prompt, type SegmentSink } from '../../lib/text/prompt.js'
import { promptTemplates } from '../../lib/text/prompt-template.js'
import { Tokenizer } from '../../lib/text/tokenizer.js'
import { describeShared, sharedPath } from './shared.js'
import { byteLevelTokenizer } from './small-tokenizers.js'

/** A forest that only remembers what was added. */
class Recorder implements SegmentSink {
  segments: { parent: number | null; tokens: number[] }[] = []
  add(parent: number | null, tokens: Int32Array): number {
    return this.segments.push({ parent, tokens: [...tokens] }) - 1
  }
  flatten(index: number): number[] {
    const { parent, tokens } = this.segments[index]!
    return parent === null ? tokens : [...this.flatten(parent), ...tokens]
  }
}

const chatml =
  "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"

describe('prompts of one document', () => {
  const tokenizer = byteLevelTokenizer(
    [
      ['t', 'h'],
      ['th', 'e'],
    ],
    { chatTemplate: chatml },
  )
  const document = Document.tokenize(tokenizer, 'the cat saw the 😀 there')

  for (const template of [...Object.keys(promptTemplates), 'Go on: {context}', '{context}', '{context} …']) {
    for (const chat of ['auto', 'never'] as const) {
      it(`as a forest equal the flat prompts token for token (${template}, chat ${chat})`, () => {
        const prompt = Prompt.compile(tokenizer, { template, chat })
        const forest = new Recorder()
        const positions = [7, 3, 7, 1, document.length]
        const segments = prompt.addTo(forest, document, positions)
        segments.forEach((segment, i) => {
          expect(forest.flatten(segment)).toEqual([...prompt.flat(document, positions[i]!)])
          expect(prompt.flat(document, positions[i]!).length).toBe(prompt.lengthAt(positions[i]!))
        })
        expect(segments[0]).toBe(segments[2])
        const total = forest.segments.reduce((sum, segment) => sum + segment.tokens.length, 0)
        expect(total).toBe(prompt.prefix.length + document.length + 4 * prompt.suffix.length)
      })
    }
  }

  it('of several documents can share the prefix too', () => {
    const prompt = Prompt.compile(tokenizer, { template: 'v6' })
    const forest = new Recorder()
    const root = forest.add(null, prompt.prefix)
    for (const text of ['the end', 'cats']) {
      const other = Document.tokenize(tokenizer, text)
      const [segment] = prompt.addTo(forest, other, [3], root)
      expect(forest.flatten(segment!)).toEqual([...prompt.flat(other, 3)])
    }
    expect(forest.segments.filter((segment) => segment.parent === null).length).toBe(1)
  })

  it('at position 0 and without any template around it, are refused or are the suffix alone', () => {
    const forest = new Recorder()
    const [segment] = Prompt.compile(tokenizer, { template: '{context}', chat: 'never' }).addTo(forest, document, [0])
    expect(forest.flatten(segment!)).toEqual([tokenizer.idOf('<think>')])
    const empty = Prompt.compile(tokenizer, { template: '{context}', chat: 'never', think: '' })
    expect(() => empty.addTo(forest, document, [0])).toThrow(/position 0 is empty/)
    expect(() => empty.addTo(forest, document, [document.length + 1])).toThrow(/do not lie/)
  })

  it('open the thought once, where the chat template does not', () => {
    expect(Prompt.compile(tokenizer).text.suffix).toBe('<|assistant|><think>\n')
    const opening = byteLevelTokenizer([], { chatTemplate: `${chatml}{{ '<think>\\n' }}` })
    expect(Prompt.compile(opening).text.suffix).toBe('<|assistant|><think>\n')
    expect(Prompt.compile(tokenizer, { chat: 'never' }).text.suffix).toBe('<think>')
    expect(Prompt.compile(tokenizer, { think: '<thought>' }).text.suffix).toBe('<|assistant|><thought>')
    expect(Prompt.compile(tokenizer, { chat: 'never' }).suffix).toEqual(Int32Array.of(tokenizer.idOf('<think>')!))
  })

  it('name what is wrong with a template', () => {
    expect(() => Prompt.compile(tokenizer, { template: 'v7' })).toThrow(/\{context\} exactly once/)
    expect(() => Prompt.compile(tokenizer, { template: '{context}{context}' })).toThrow(/occurs 2 times/)
    expect(() => Prompt.compile(byteLevelTokenizer(), { chat: 'always' })).toThrow(/no chat template/)
    const dropping = byteLevelTokenizer([], { chatTemplate: 'hello' })
    expect(() => Prompt.compile(dropping)).toThrow(/drops the user's message/)
  })
})

describe("the paper's templates", () => {
  it('all put the context once, after the instruction, and ask for a box', () => {
    expect(Object.keys(promptTemplates)).toEqual(['v0', 'v1', 'v2', 'v3', 'v4', 'v5', 'v6'])
    for (const template of Object.values(promptTemplates)) {
      const [before, after, ...more] = template.split('{context}')
      expect(more).toEqual([])
      expect(before).toContain('\\boxed{')
      expect(before!.length).toBeGreaterThan(after!.length)
    }
  })
})

describeShared('chat_templates', 'real chat templates', async () => {
  const source = (name: string) => readFileSync(sharedPath('chat_templates', `${name}.jinja`), 'utf8')
  const messages = [{ role: 'user' as const, content: 'Hi' }]

  it('render as published', () => {
    const render = (name: string, tokens = {}) =>
      new ChatTemplate(source(name), tokens).render(messages, { addGenerationPrompt: true })
    expect(render('qwen2.5')).toBe(
      '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' +
        '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n',
    )
    expect(render('qwen3')).toBe('<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n')
    expect(render('smollm2')).toBe(
      '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' +
        '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n',
    )
    expect(render('deepseek-r1-distill-qwen', { bos_token: '<bos>' })).toBe('<bos><｜User｜>Hi<｜Assistant｜><think>\n')
  })

  it('leave exactly one opened thought before the answer', () => {
    for (const name of ['qwen2.5', 'qwen3', 'smollm2', 'deepseek-r1-distill-qwen']) {
      const prompt = Prompt.compile(byteLevelTokenizer([], { chatTemplate: source(name) }))
      expect(prompt.text.suffix.split('<think>').length).toBe(2)
      expect(prompt.text.suffix.endsWith('<think>\n')).toBe(true)
      expect(prompt.text.prefix.endsWith('### Context\n')).toBe(true)
    }
  })
})

describeShared('tokenizers', 'a prompt for DeepSeek-R1-Distill-Qwen', async () => {
  const tokenizer = await Tokenizer.open(sharedPath('tokenizers', 'deepseek-r1-distill-qwen'))
  it('begins with the first token once and ends with the thought opened', () => {
    const document = Document.tokenize(tokenizer, 'Let $x$ be a real number.')
    const prompt = Prompt.compile(tokenizer)
    const ids = [...prompt.flat(document, 3)]
    expect(ids.filter((id) => id === tokenizer.bosId)).toEqual([ids[0]])
    expect(tokenizer.decode(ids)).toBe(
      `<｜begin▁of▁sentence｜><｜User｜>${promptTemplates.v0.replace('{context}', 'Let $x')}<｜Assistant｜><think>\n`,
    )
    expect(ids.slice(-3)).toEqual([151645, 151648, 198])
  })
})
