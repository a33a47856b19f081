import { ForetokenError } from '../engine/errors.js'
import { Prompt, type PromptOptions } from '../text/prompt.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { type DynamicSampling, fillBatch, hasSignal } from './groups.js'
import type { Method, StepPlan, StepTools } from './method.js'
import { requirePositive } from './require-positive.js'
import { type AnswerGroup, defaultMaxTokens, rollOut, type SamplingOptions } from './rollouts.js'
import { rolloutMetrics } from './rpt-metrics.js'
import { type PolicyOptions, policyUpdates } from './rpt-updates.js'
import { samplesOf } from './samples.js'
import { drawTargets, type TargetOptions } from './targets.js'

/** Reinforcement pre-training (arXiv 2506.08007); the defaults are the paper's, and the usual ones where it is silent. */
export interface RptOptions extends PolicyOptions {
  /** How the question is put; default template v0 in the model's own chat template. */
  prompt?: PromptOptions
  /** The longest prompt, in tokens; longer documents are asked about in parts. Default 4096. */
  maxPromptTokens?: number
  /** Questions per step. Default 256. */
  contextsPerStep?: number
  /** G: answers per question. Default 8. */
  rolloutsPerContext?: number
  /** Default: entropy of the model itself above 0.5 nats, at most 4 positions of a document. */
  targets?: TargetOptions
  /** How answers are sampled; default temperature 0.8, at most 8192 tokens. */
  sampling?: SamplingOptions
  /** Default from step 500 on, at most 3 tries; false never. */
  dynamicSampling?: DynamicSampling | false
  /** Rollouts of a step that are decoded. Default 8. */
  samplesPerStep?: number
}

/** The method of the paper: think before a chosen position, predict what follows, be rewarded by the text itself. */
export function rpt(options: RptOptions = {}): Method {
  const {
    contextsPerStep = 256,
    rolloutsPerContext = 8,
    maxPromptTokens = 4096,
    dynamicSampling = defaultDynamicSampling,
    samplesPerStep = 8,
  } = options
  const targetOptions: TargetOptions = { by: 'threshold', maxPerDocument: 4, ...options.targets }
  requirePositive('contextsPerStep', contextsPerStep)
  requirePositive('rolloutsPerContext', rolloutsPerContext)
  requirePositive('updatesPerBatch', options.updatesPerBatch ?? 1)
  requirePositive('epochsPerBatch', options.epochsPerBatch ?? 1)
  if (!((options.sampling?.temperature ?? 1) > 0)) {
    throw new ForetokenError('INVALID_CONFIG', 'sampling.temperature must be above 0: greedy answers are all the same')
  }

  const prompts = new WeakMap<Tokenizer, Prompt>()
  const promptFor = (tokenizer: Tokenizer): Prompt => {
    const prompt = prompts.get(tokenizer) ?? Prompt.compile(tokenizer, options.prompt)
    prompts.set(tokenizer, prompt)
    return prompt
  }

  return {
    name: 'rpt',
    settings: settingsOf(options),
    needsReference: (options.kl?.coefficient ?? 0) !== 0,

    documents(tokenizer) {
      const room = maxPromptTokens - promptFor(tokenizer).lengthAt(0)
      if (room < 2) {
        throw new ForetokenError(
          'INVALID_CONFIG',
          `maxPromptTokens is ${maxPromptTokens}, but the template alone has ${maxPromptTokens - room} tokens`,
        )
      }
      // The last token of a part is asked about with all others before it.
      return { maxTokens: room + 1 }
    },

    async collect(tools: StepTools): Promise<StepPlan | undefined> {
      const prompt = promptFor(tools.tokenizer)
      const longest = maxPromptTokens + (options.sampling?.maxTokens ?? defaultMaxTokens)
      const limit = tools.engine.config.maxPositionEmbeddings
      if (longest > limit) {
        throw new ForetokenError(
          'INVALID_CONFIG',
          `maxPromptTokens and sampling.maxTokens add up to ${longest} tokens, but the model ends at ${limit}`,
        )
      }
      const dynamic = dynamicSampling !== false && tools.step >= dynamicSampling.fromStep
      let attempt = 0
      let groups = 0
      const { kept, sampled, tries } = await fillBatch<AnswerGroup>({
        wanted: contextsPerStep,
        tries: dynamic ? dynamicSampling.maxTries : 1,
        hasSignal: ({ answers }) => hasSignal(answers.map(({ reward }) => reward)),
        async draw(count) {
          const targets = await drawTargets(tools, count, targetOptions)
          const answered = await rollOut(tools, prompt, targets, {
            ...options.sampling,
            rolloutsPerContext,
            attempt: attempt++,
            firstGroup: groups,
          })
          groups += targets.length
          return answered
        },
      })
      if (sampled.length === 0) return undefined
      const { updates, trained } = await tools.time('update', () => policyUpdates(tools, prompt, kept, options))
      return {
        updates,
        metrics: { ...rolloutMetrics(sampled), 'rpt/groups_trained': trained, 'rpt/tries': tries },
        samples: samplesOf(sampled, prompt, samplesPerStep),
      }
    },
  }
}

/** What decides the run, as JSON; an index of difficulties counts by what it was made from. */
function settingsOf({ targets, samplesPerStep: _, ...options }: RptOptions): unknown {
  const difficulty = typeof targets?.difficulty === 'object' ? targets.difficulty.header : targets?.difficulty
  return { ...options, targets: { ...targets, ...(difficulty !== undefined && { difficulty }) } }
}

const defaultDynamicSampling: DynamicSampling = { fromStep: 500, maxTries: 3 }
