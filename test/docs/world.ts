import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { Engine, writeTokenizer } from '../../lib/index.js'
import { root } from './pages.js'

/** A folder such as a reader has: the package installed, a text, and where the page begins with one, a small model. */
export interface World {
  readonly folder: string
  /** Runs a script there with bash; `foretoken` and `npx foretoken` are the program, made to do less. */
  run(script: string): Promise<{ status: number | null; output: string }>
  remove(): Promise<void>
}

// What makes a command of the docs quick: a run has two small steps, whatever its config says.
const smaller = [
  ...['--steps', '2', '--logging.progress-seconds', '0', '--evaluation.documents', '3'],
  ...['--evaluation.positions-per-document', '2', '--rpt.contexts-per-step', '4', '--rpt.rollouts-per-context', '2'],
  ...['--sft.sequences-per-step', '4', '--ntp.documents-per-step', '4', '--sampling.max-tokens', '8'],
]

const programs = {
  foretoken: `#!/bin/sh
case "$1 $*" in
  *--resume*|*--keys*|*--help*) ;;
  train*|pretrain*) set -- "$@" ${smaller.join(' ')} ;;
esac
exec '${process.execPath}' '${join(root, 'dist', 'cli', 'main.js')}' "$@"
`,
  npx: '#!/bin/sh\nexec "$@"\n',
  // A page that needs one of these has to say so in a comment before the block.
  ...Object.fromEntries(
    ['npm', 'git', 'curl', 'wget'].map((name) => [
      name,
      `#!/bin/sh\necho "${name} is not run by tests" >&2\nexit 99\n`,
    ]),
  ),
}

let model: Promise<string> | undefined

/** A model of some thousand weights over bytes, made once. */
async function smallModel(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'foretoken-docs-model-'))
  const config = {
    model_type: 'qwen3',
    vocab_size: 260,
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    head_dim: 16,
    max_position_embeddings: 1024,
    tie_word_embeddings: false,
    eos_token_id: 259,
  }
  await using engine = await Engine.create(config, { seed: 7, threads: 1, initialisation: { embedding: 1 } })
  await engine.save(join(folder, 'model'))
  await writeTokenizer(join(folder, 'model'))
  return join(folder, 'model')
}

export async function makeWorld({ empty = false } = {}): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), 'foretoken-docs-'))
  const bin = join(folder, '.bin')
  await mkdir(bin)
  for (const [name, script] of Object.entries(programs)) await writeFile(join(bin, name), script, { mode: 0o755 })
  await mkdir(join(folder, 'node_modules', '@types'), { recursive: true })
  await symlink(root, join(folder, 'node_modules', 'foretoken'))
  await symlink(join(root, 'node_modules', '@types', 'node'), join(folder, 'node_modules', '@types', 'node'))
  await copyFile(join(root, 'LICENSE'), join(folder, 'text.txt'))
  if (!empty) {
    model ??= smallModel()
    await cp(await model, join(folder, 'model'), { recursive: true })
  }
  return {
    folder,
    async run(script) {
      const child = spawn('bash', ['-eu', '-o', 'pipefail', '-c', script], {
        cwd: folder,
        env: { ...process.env, PATH: `${bin}:${dirname(process.execPath)}:${process.env.PATH}`, FORETOKEN_DEBUG: '' },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      const [out, error] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
      return { status: child.exitCode, output: `${out}${error}` }
    },
    remove: () => rm(folder, { recursive: true }),
  }
}

/** Removes the model that worlds were given. */
export async function removeModel(): Promise<void> {
  if (model) await rm(dirname(await model), { recursive: true })
}
