// foretoken beside PyTorch, transformers and TRL on the same work, taking turns in one run, and their ratios.
//
//   PYTHON=.venv/bin/python npm run bench -- peers [--shape qwen3-12m] [--dtype bfloat16] [--rounds 3] [--parts train,generate,generate-apart,grpo,trl]
//
// PYTHON has bench/peers/requirements.txt installed. Each part is one of ours and one of theirs per round, in turn, both
// the median of five runs after one that warms up; the figure is the median of the rounds' ratios, so that a change of
// the machine's speed meets both.

import { execFileSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { buildNative, buildTree } from '../scripts/build-native.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const { values } = parseArgs({
  options: {
    shape: { type: 'string', default: 'qwen3-12m' },
    dtype: { type: 'string', default: 'bfloat16' },
    rounds: { type: 'string', default: '3' },
    parts: { type: 'string', default: 'train,generate,generate-apart,grpo,trl' },
  },
})
const python = process.env.PYTHON ?? 'python3'

const lines = (text) =>
  text
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))

/** Our figure `what` from bench/native/engine. */
function ours(part, what, dtype) {
  const args = ['--shape', values.shape, '--dtype', dtype, '--part', part, '--repeats', '5', '--json', 'yes']
  const found = lines(execFileSync(join(buildTree, 'bench', 'engine'), args, { encoding: 'utf8' })).find(
    (line) => line.what === what,
  )
  return found.value
}

/** The figure of one of bench/peers' scripts. */
function theirs(script, dtype, repeats, more = []) {
  const args = [
    join(here, 'peers', script),
    '--shape',
    values.shape,
    '--dtype',
    dtype,
    '--repeats',
    String(repeats),
    ...more,
  ]
  return lines(execFileSync(python, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })).at(-1).value
}

// A rate is better when larger, a time when smaller.
const parts = {
  train: {
    name: 'training, tokens/s',
    part: 'train',
    what: 'train',
    script: 'train.py',
    dtype: values.dtype,
    rate: true,
    bar: 2,
  },
  generate: {
    name: 'rollouts, 8 of each of 4 contexts, tokens/s',
    part: 'grpo',
    what: 'grpo-rollouts',
    script: 'generate.py',
    dtype: values.dtype,
    rate: true,
    bar: 8,
  },
  // Nothing is shared here: what is left is the engine's own speed.
  'generate-apart': {
    name: 'rollouts of 32 different contexts, tokens/s',
    part: 'rollouts',
    what: 'rollouts-32',
    script: 'generate.py',
    more: ['--contexts', '32', '--group', '1'],
    dtype: values.dtype,
    rate: true,
  },
  grpo: {
    name: 'GRPO step in plain PyTorch, s',
    part: 'grpo',
    what: 'grpo-step',
    script: 'grpo_step.py',
    dtype: values.dtype,
    rate: false,
    bar: 5,
  },
  trl: {
    name: 'GRPO step by TRL (float32), s',
    part: 'grpo',
    what: 'grpo-step',
    script: 'grpo_trl.py',
    dtype: 'float32',
    rate: false,
    bar: 10,
  },
}

buildNative('benchmarks', { variables: { FORETOKEN_BENCH: 'ON' } })
console.log(`${values.shape}, ${values.dtype}, ${values.rounds} rounds`)
for (const key of values.parts.split(',')) {
  const part = parts[key]
  const rounds = []
  for (let round = 0; round < Number(values.rounds); ++round) {
    // TRL's own step is compared with ours in the dtype that the user would choose.
    const mine = ours(part.part, part.what, values.dtype)
    const peer = theirs(part.script, part.dtype, 5, part.more)
    rounds.push({ mine, peer, ratio: part.rate ? mine / peer : peer / mine })
  }
  rounds.sort((a, b) => a.ratio - b.ratio)
  const middle = rounds[Math.floor(rounds.length / 2)]
  const spread = `${rounds[0].ratio.toFixed(1)}–${rounds.at(-1).ratio.toFixed(1)}`
  console.log(
    `${part.name.padEnd(44)} ours ${middle.mine.toPrecision(4).padStart(8)}   peer ${middle.peer.toPrecision(4).padStart(8)}   ` +
      `ratio ${middle.ratio.toFixed(1)} (${spread})${part.bar ? `, bar ${part.bar}` : ''}`,
  )
}
