import { ForetokenError } from '../engine/errors.js'
import type { Document } from './document.js'
import { splitPromptTemplate } from './prompt-template.js'
import type { Tokenizer } from './tokenizer.js'

/** How the question is put to the model. */
export interface PromptOptions {
  /** One of v0–v6, or a text with `{context}` in it. Default v0. */
  template?: string
  /** Whether the model's chat template wraps the question: `auto` where the model has one. Default `auto`. */
  chat?: 'auto' | 'always' | 'never'
  /** A system message, for the chat template. */
  system?: string
  /** Further variables of the chat template. */
  chatVariables?: Record<string, unknown>
  /**
   * What opens the thought where the chat template does not: default `<think>` with a line break after it in a chat
   * and none otherwise. An empty string leaves it to the model.
   */
  think?: string
}

/** The part of the engine's TokenForest that prompts need. */
export interface SegmentSink {
  /** Adds a segment after its parent (null for a root) and returns its index. */
  add(parent: number | null, tokens: Int32Array): number
}

/**
 * A question compiled to token ids: what stands before the context and what follows it.
 *
 * The context between them is a cut of a document's own ids, so prompts of one document share everything up to the
 * earlier cut.
 */
export class Prompt {
  private constructor(
    /** Ids before the context. */
    readonly prefix: Int32Array,
    /** Ids after the context, up to where the model begins. */
    readonly suffix: Int32Array,
    /** The texts of both, for people. */
    readonly text: { prefix: string; suffix: string },
  ) {}

  /** Compiles a template. Throws `INVALID_CONFIG` when template or chat template cannot hold a context. */
  static compile(tokenizer: Tokenizer, options: PromptOptions = {}): Prompt {
    const { before, after } = splitPromptTemplate(options.template ?? 'v0')
    const mode = options.chat ?? 'auto'
    const chat = mode === 'never' ? undefined : tokenizer.chatTemplate
    if (mode === 'always' && !chat) {
      throw new ForetokenError('INVALID_CONFIG', "chat is 'always', but the model has no chat template; use 'never'")
    }
    let prefix = before
    let suffix = after
    if (chat) {
      const rendered = chat.render(
        [
          ...(options.system !== undefined ? [{ role: 'system' as const, content: options.system }] : []),
          { role: 'user', content: `${before}${sentinel}${after}` },
        ],
        { addGenerationPrompt: true, variables: { enable_thinking: true, ...options.chatVariables } },
      )
      const parts = rendered.split(sentinel)
      if (parts.length !== 2) {
        throw new ForetokenError(
          'INVALID_CONFIG',
          `the chat template repeats or drops the user's message (${parts.length - 1} times in its output); ` +
            "use chat: 'never' or another template",
        )
      }
      prefix = parts[0]!
      suffix = parts[1]!
    } else if (options.system !== undefined) {
      throw new ForetokenError('INVALID_CONFIG', 'a system message needs a chat template; put it into the template')
    }
    const opened = suffix.trimEnd().endsWith('<think>')
    if (!opened) suffix += options.think ?? (chat ? '<think>\n' : '<think>')

    // A chat template writes the first token itself; without one it is ours to add, as for any text.
    const bos = !chat && tokenizer.addsBos ? [tokenizer.bosId!] : []
    const prefixIds = tokenizer.encode(prefix, { special: true })
    return new Prompt(
      Int32Array.from([...bos, ...prefixIds]),
      tokenizer.encode(suffix, { special: true, continues: true }),
      { prefix, suffix },
    )
  }

  /** The number of tokens of the prompt at position t. */
  lengthAt(t: number): number {
    return this.prefix.length + t + this.suffix.length
  }

  /** The whole prompt at position t as one run of ids. */
  flat(document: Document, t: number): Int32Array {
    const ids = new Int32Array(this.lengthAt(t))
    ids.set(this.prefix)
    ids.set(document.context(t), this.prefix.length)
    ids.set(this.suffix, this.prefix.length + t)
    return ids
  }

  /**
   * Adds the prompts at several positions of a document as one tree: a chain of context segments, cut at the
   * positions, with the suffix hanging off each cut.
   *
   * Returns the segment to continue for each position, in the order given; equal positions share one. `parent` is a
   * segment that already holds the prefix, for documents that share it too.
   */
  addTo(forest: SegmentSink, document: Document, positions: ArrayLike<number>, parent: number | null = null): number[] {
    const cuts = [...new Set(Array.from(positions))].sort((a, b) => a - b)
    if (cuts.length > 0 && !(cuts[0]! >= 0 && cuts.at(-1)! <= document.length)) {
      throw new ForetokenError(
        'INVALID_ARGUMENT',
        `positions ${cuts[0]} to ${cuts.at(-1)} do not lie in a document of ${document.length} tokens`,
      )
    }
    const questions = new Map<number, number>()
    let context = parent
    let start = 0
    for (const cut of cuts) {
      let tokens = document.ids.subarray(start, cut)
      if (context === null) tokens = Int32Array.from([...this.prefix, ...tokens])
      if (tokens.length > 0) context = forest.add(context, tokens)
      start = cut
      const question = this.suffix.length > 0 ? forest.add(context, this.suffix) : context
      if (question === null) {
        throw new ForetokenError('INVALID_ARGUMENT', 'the prompt at position 0 is empty: the model needs one token')
      }
      questions.set(cut, question)
    }
    return Array.from(positions, (t) => questions.get(t)!)
  }
}

// Letters and digits only, so that no template escapes, trims or splits it.
const sentinel = 'FORETOKEN7c1e0d52CONTEXT'
