import type { Method, MethodEngine, Update } from '../../lib/algorithm/method.js'
import { TokenForest } from '../../lib/engine/token-forest.js'

/**
 * The same method for an engine that shares nothing between questions: every question is a tree of its own, and in
 * training every answer is a sequence of its own behind a prompt of its own. Rollouts, rewards and loss are the same.
 */
export function withoutSharing(method: Method): Method {
  return {
    ...method,
    async collect(tools) {
      const engine: MethodEngine = {
        ...tools.engine,
        sample(forest, options) {
          const flat = new TokenForest()
          const from = Array.from(options.from, (segment) => flat.add(null, forest.flatten(segment)))
          return tools.engine.sample(flat, { ...options, from })
        },
      }
      const plan = await method.collect({ ...tools, engine })
      return plan && { ...plan, updates: await tools.time('update', () => plan.updates.map(flattened)) }
    },
  }
}

function flattened({ forest, terms, ...update }: Update): Update {
  const flat = new TokenForest()
  const { policy } = terms
  if (policy?.kind !== 'policy') throw new Error('an update of rpt has a policy term')
  const segments = Array.from(policy.segments, (segment) => {
    const { parent, begin, end } = forest.segment(segment)
    return flat.add(flat.add(null, forest.flatten(parent!)), forest.tokens.subarray(begin, end))
  })
  return { ...update, forest: flat, terms: { policy: { ...policy, segments } } }
}
