export { evaluate } from './evaluate.js'
export { evaluationMetrics } from './evaluation-metrics.js'
export { chooseEvaluationTargets, type EvaluationTargetOptions } from './targets.js'
export type {
  EvaluationOptions,
  EvaluationReport,
  EvaluationSample,
  EvaluationTarget,
  ReasoningResult,
  SplitResult,
} from './types.js'
