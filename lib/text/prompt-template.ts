import { ForetokenError } from '../engine/errors.js'

/** The ids of the paper's seven templates. */
export type PromptTemplateId = 'v0' | 'v1' | 'v2' | 'v3' | 'v4' | 'v5' | 'v6'

const note = (example: string) =>
  `(note: the token may begin with a space, e.g., \\boxed{ para} or \\boxed{ ${example}}; do not use \\text{})`
const fence = '```'

/**
 * The prompt templates of the RPT paper (arXiv 2506.08007v1, appendix D, table 10), with `{context}` for its
 * `{prompt_content}`. The words, the quote marks and the doubled backslash of v1 and v2 are as printed there. Line
 * breaks are not certain: extractions of the table differ, so a heading or fence stands on its own line here, and the
 * ` \n ` that v4 prints is taken as a line break.
 */
export const promptTemplates: Readonly<Record<PromptTemplateId, string>> = {
  v0:
    'Complete the given text under \u2018### Context\u2019 by predicting the next token, and wrap it in ' +
    '\u2018\\boxed{}\u2019. Please reason step by step to find the most probable next token as the final answer, ' +
    `and enclose it in \\boxed{} ${note('=')}.\n\n### Context\n{context}`,
  v1:
    'Complete the given text under ### Context by predicting the next token, and wrap it in \\\\boxed{}. Please ' +
    'reason step by step to find the most probable next token as the final prediction, and enclose it in \\boxed{} ' +
    `${note('=')}.\n\n### Context\n${fence}{context}${fence}.`,
  v2:
    'You are a helpful assistant, good at predicting the next token for a given context.\n\nNow, please complete the ' +
    'given text under ### Context by predicting the next token, and wrap it in \\\\boxed{}. Please reason step by ' +
    `step to find the most probable next token, and enclose it in \\boxed{} ${note('+=')}.\n\n` +
    `### Context\n${fence}{context}${fence}.`,
  v3:
    'Complete the given text under ### Context by predicting the next token, list multiple potential tokens and ' +
    'select the most probable one as the final answer. Wrap your final answer in \\boxed{} ' +
    `${note('=')}.\n\n### Context\n${fence}{context}${fence}`,
  v4:
    'Complete the given text under ### Context by predicting the next token, and wrap it in \\boxed{}. Please reason ' +
    'step by step to find the most probable next token as the final answer, and enclose it in \\boxed{}.\n\n' +
    'Some examples:\n\n' +
    `### Context\n\n${fence}...(some omitted)...Matching calculations with 1990 valid combinations indicates the ` +
    'minimum value of \\( b \\) that fits all pre-requisites and restrictions for triangle formation and symmetry ' +
    `generates the efficient outcome:\n\n\\[\n\\boxed{1991^2}\n\\]\n\nIn${fence}\n\nThe next token is \\boxed{ this}\n\n` +
    `### Context\n\n${fence}...Thus $2^{A}=\\left(2^{a}\\right)^{2}\\left(2^{3}\\right)=${fence}\n\n` +
    'The next token is \\boxed{9}\n\n' +
    `### Context\n\n${fence}..., numerical exploration shows${fence}\n\nThe next token is \\boxed{:\n}\n\n` +
    `Now, the context is:\n\n### Context\n\n${fence}{context}${fence}.`,
  v5:
    'Complete the given text under ### Context by predicting the next token, and wrap it in \\boxed{}. Please reason ' +
    'step by step to find the most probable next token as the final answer, and enclose it in \\boxed{} ' +
    `${note('=')}.\n\n### Context\n${fence}{context}${fence}.`,
  v6:
    `Complete the given text wrapped in ${fence} and ${fence} by predicting the next token, list multiple potential ` +
    'tokens and select the most probable one as the final prediction. Wrap your final prediction in \\boxed{} ' +
    `${note('=')}.\n\nThe context is: ${fence}{context}${fence}, now please predict the next token.`,
}

/**
 * Splits a template around its one `{context}`; other braces are text. A name that is not one of v0–v6 is taken as the
 * template itself. Throws `INVALID_CONFIG` where `{context}` is missing or occurs twice.
 */
export function splitPromptTemplate(template: string): { before: string; after: string } {
  const text = Object.hasOwn(promptTemplates, template) ? promptTemplates[template as PromptTemplateId] : template
  const parts = text.split(contextPlaceholder)
  if (parts.length !== 2) {
    throw new ForetokenError(
      'INVALID_CONFIG',
      `the prompt template ${JSON.stringify(text.slice(0, 60))} must contain ${contextPlaceholder} exactly once ` +
        `(it occurs ${parts.length - 1} times), or be one of ${Object.keys(promptTemplates).join(', ')}`,
    )
  }
  return { before: parts[0]!, after: parts[1]! }
}

const contextPlaceholder = '{context}'
