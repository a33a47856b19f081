export { conditionalDenseReward, denseReward } from './dense.js'
export { extractBox } from './extract-box.js'
export { firstTokenReward } from './first-token.js'
export { informationGainReward, type LogProbOptions, logProbReward } from './log-prob.js'
export { prefixMatch, prefixMatchReward } from './prefix-match.js'
export {
  evaluateReward,
  makeRewardContext,
  type Reward,
  type RewardContext,
  type RewardFunction,
  type RewardTools,
  rewardFromFunction,
  type ScoreRequest,
} from './reward.js'
export { createReward, type RewardName, rewards } from './rewards.js'
