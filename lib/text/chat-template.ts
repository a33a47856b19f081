import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Template } from '@huggingface/jinja'
import { ForetokenError } from '../engine/errors.js'

/** One turn of a conversation. */
export interface ChatMessage {
  /** Who speaks. */
  role: 'system' | 'user' | 'assistant' | 'tool'
  /** What is said. */
  content: string
}

/** What a chat template sees beside the messages. */
export interface ChatRenderOptions {
  /** Ends the text where the assistant's answer begins. */
  addGenerationPrompt?: boolean
  /** Further variables of the template, such as `enable_thinking`. */
  variables?: Record<string, unknown>
}

/** A model's own Jinja chat template with its special tokens bound. */
export class ChatTemplate {
  private readonly template: Template

  /** Throws `INVALID_TOKENIZER` when the Jinja source does not parse. */
  constructor(
    /** The Jinja text. */
    readonly source: string,
    private readonly specialTokens: Record<string, string> = {},
  ) {
    try {
      this.template = new Template(source)
    } catch (cause) {
      throw new ForetokenError('INVALID_TOKENIZER', `the chat template does not parse: ${(cause as Error).message}`, {
        cause,
      })
    }
  }

  /** Writes a conversation as the model expects it. Throws `INVALID_ARGUMENT` when the template refuses. */
  render(messages: readonly ChatMessage[], options: ChatRenderOptions = {}): string {
    try {
      return this.template.render({
        ...this.specialTokens,
        ...options.variables,
        messages: messages.map((message) => ({ ...message })),
        add_generation_prompt: options.addGenerationPrompt ?? false,
      })
    } catch (cause) {
      throw new ForetokenError('INVALID_ARGUMENT', `the chat template failed: ${(cause as Error).message}`, { cause })
    }
  }
}

/**
 * Finds a model directory's chat template: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`
 * (of several named ones, `default`). Gives undefined where there is none.
 */
export async function findChatTemplate(
  directory: string,
  tokenizerConfig: Record<string, unknown>,
): Promise<string | undefined> {
  try {
    return await readFile(join(directory, 'chat_template.jinja'), 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
  }
  const entry = tokenizerConfig.chat_template
  if (typeof entry === 'string') return entry
  if (!Array.isArray(entry)) return undefined
  const named = entry as { name?: unknown; template?: unknown }[]
  const chosen = named.find((candidate) => candidate.name === 'default') ?? named[0]
  return typeof chosen?.template === 'string' ? chosen.template : undefined
}
