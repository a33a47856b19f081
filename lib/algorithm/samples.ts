import { endOfThought } from '../reward/extract-box.js'
import type { Prompt } from '../text/prompt.js'
import type { Sample } from './method.js'
import type { Answer, AnswerGroup } from './rollouts.js'

/** Decodes the first answer of `count` groups spread over a step, for people to read. */
export function samplesOf(groups: readonly AnswerGroup[], prompt: Prompt, count: number): Sample[] {
  const chosen = Math.min(count, groups.length)
  return Array.from({ length: chosen }, (_, i) => {
    const { target, answers } = groups[Math.floor((i * groups.length) / chosen)]!
    return sampleOf(answers[0]!, target.entropy, prompt)
  })
}

function sampleOf({ judged, tokens, stop, reward }: Answer, entropy: number, prompt: Prompt): Sample {
  const { document, position, prediction, responseBytes, truth } = judged
  const context = text(document.bytes.subarray(0, document.offsets[position]!))
  return {
    context: context.slice(-contextCharacters),
    prompt: `${prompt.text.prefix}${context}${prompt.text.suffix}`,
    thought: text(thoughtOf(responseBytes)),
    prediction: prediction && text(prediction),
    truth: text(truth.subarray(0, truthBytes)),
    reward,
    entropy: Number.isNaN(entropy) ? null : entropy,
    length: tokens.length,
    stop,
    document: document.id,
    position,
  }
}

/** The bytes of an answer before the end of its thought; all of it where the thought does not end. */
export function thoughtOf(response: Uint8Array): Uint8Array {
  const end = Buffer.from(response.buffer, response.byteOffset, response.length).indexOf(endOfThought)
  return end < 0 ? response : response.subarray(0, end)
}

export function text(bytes: Uint8Array): string {
  return utf8.decode(bytes)
}

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })
export const contextCharacters = 200
export const truthBytes = 40
