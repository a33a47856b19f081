export { type Checkpoint, latestCheckpoint, listCheckpoints, readTrainerState } from './checkpoint.js'
export { Trainer } from './trainer.js'
export type {
  CheckpointOptions,
  OptimizerOptions,
  StepMetrics,
  TrainEvent,
  TrainerEvaluation,
  TrainerOptions,
  TrainerState,
} from './types.js'
