import type { Method } from '../algorithm/method.js'
import { ntp } from '../algorithm/ntp.js'
import { rpt } from '../algorithm/rpt.js'
import { sft } from '../algorithm/sft.js'
import type { TextCorpus } from '../algorithm/text-corpus.js'
import type { DifficultyIndex } from '../corpus/difficulty-index.js'
import type { PromptOptions } from '../text/prompt.js'
import type { RunConfig } from './config-schema.js'

/** What a method needs beside the config. */
export interface MethodParts {
  /** Entropies made once, for `rpt`. */
  difficulty?: DifficultyIndex
  /** For `sft`. */
  traces?: TextCorpus
}

/** The method of a config. */
export function makeMethod(config: RunConfig, parts: MethodParts = {}): Method {
  switch (config.method) {
    case 'ntp':
      return ntp(defined(config.ntp))
    case 'sft':
      return sft({ ...defined(config.sft), traces: parts.traces!, prompt: promptOptions(config) })
    case 'rpt':
      return makeRpt(config, parts.difficulty)
  }
}

/** The prompt of a config. */
export function promptOptions({ prompt }: Pick<RunConfig, 'prompt'>): PromptOptions {
  return defined(prompt) as PromptOptions
}

function makeRpt(config: RunConfig, difficulty: DifficultyIndex | undefined): Method {
  const {
    kl,
    overlong,
    auxiliary,
    dynamicSampling,
    reward: _reward,
    rewardOptions: _options,
    averageTau: _tau,
    ...policy
  } = defined(config.rpt)
  const { maxPromptTokens, ...sampling } = config.sampling
  const { proxy: _proxy, index: _index, ...targets } = defined(config.difficulty)
  return rpt({
    ...policy,
    prompt: promptOptions(config),
    maxPromptTokens,
    sampling,
    targets: { ...targets, ...(difficulty && { difficulty }) },
    ...(kl.coefficient > 0 && { kl }),
    ...(overlong.buffer > 0 && { overlong }),
    ...(auxiliary.coefficient > 0 && { auxiliary }),
    dynamicSampling: dynamicSampling.maxTries > 1 ? dynamicSampling : false,
    samplesPerStep: config.logging.samplesPerStep,
  })
}

/** A section without the keys that have no value. */
function defined<Section extends object>(
  section: Section,
): { [Key in keyof Section]: Exclude<Section[Key], undefined> } {
  return Object.fromEntries(Object.entries(section).filter(([, value]) => value !== undefined)) as {
    [Key in keyof Section]: Exclude<Section[Key], undefined>
  }
}
