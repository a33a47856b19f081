import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { version } from '../../lib/version.js'
import { npmProgram, pack, root } from './packed.js'

// Slow: what a stranger does, in a fresh folder, on a machine that has Node and nothing else on its PATH. The packages
// that foretoken depends on come from npm's cache or registry.

const platform = `${process.platform}-${process.arch}`
let folder = ''
let project = ''
let env: NodeJS.ProcessEnv = {}

beforeAll(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), 'foretoken-installed-')))
  const { file } = pack(folder)
  mkdirSync(join(folder, 'bin'))
  symlinkSync(process.execPath, join(folder, 'bin', 'node'))
  // What npm and vitest set for their children would not be there.
  const own = Object.entries(process.env).filter(([name]) => !/^(npm_(?!config_)|FORETOKEN_|NODE_|VITEST)/i.test(name))
  env = { ...Object.fromEntries(own), PATH: join(folder, 'bin') }
  project = join(folder, 'project')
  mkdirSync(project)
  writeFileSync(join(project, 'package.json'), '{ "name": "project", "private": true }')
  const flags = ['--prefer-offline', '--no-audit', '--no-fund']
  const { status, stderr } = spawnSync(process.execPath, [npmProgram('npm'), 'install', file, ...flags], {
    ...{ cwd: project, env, encoding: 'utf8' },
  })
  if (status !== 0) throw new Error(`npm install failed: ${stderr}`)
}, 120_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function node(...args: string[]): string {
  return execFileSync(process.execPath, args, { cwd: project, env, encoding: 'utf8' }).trim()
}

function write(name: string, text: string): void {
  writeFileSync(join(project, name), text)
}

/** Samples from a tiny model and scores what was sampled; prints whether the bits are the same. */
const program = `
  const engine = await Engine.create({
    model_type: 'llama', vocab_size: 64, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
    num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 64,
  }, { device: 'cpu' })
  const forest = new TokenForest()
  const from = [forest.add(null, [1, 2, 3])]
  const { rollouts } = await engine.sample(forest, { from, maxTokens: 8, seed: 1 })
  const [rollout] = rollouts
  forest.add(rollout.segment, rollout.tokens)
  const { logprobs } = await engine.score(forest)
  console.log(version, rollout.tokens.length, rollout.logprobs.every((value, i) => value === logprobs[3 + i]))
  await engine.dispose()
`
const answer = `${version} 8 true`

describe('the installed package', () => {
  test('serves an ES module', () => {
    write('program.mjs', `import { Engine, TokenForest, version } from 'foretoken'\n${program}`)
    expect(node('program.mjs')).toBe(answer)
  })

  test('serves a CommonJS module', () => {
    write('program.cjs', `const { Engine, TokenForest, version } = require('foretoken')\n;(async () => {${program}})()`)
    expect(node('--no-warnings', 'program.cjs')).toBe(answer)
  })

  test('serves TypeScript, strictly, for Node and for bundlers', () => {
    const typed = program.replace('const [rollout] = rollouts', 'const rollout = rollouts[0]!')
    write('program.mts', `import { Engine, TokenForest, version, type Rollout } from 'foretoken'\n${typed}`)
    write('common.cts', "import { version } from 'foretoken'\nexport const length: number = version.length\n")
    write('wrong.mts', "import { Engine } from 'foretoken'\nEngine.open(42)\n")
    mkdirSync(join(project, 'node_modules', '@types'), { recursive: true })
    for (const name of ['@types/node', 'undici-types'])
      symlinkSync(join(root, 'node_modules', name), join(project, 'node_modules', name))
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
    const check = (module: string, resolution: string, ...files: string[]) => {
      const flags = [
        '--noEmit',
        '--strict',
        '--target',
        'es2022',
        '--lib',
        'es2023,esnext.disposable',
        '--types',
        'node',
        '--module',
        module,
      ]
      const args = [tsc, ...flags, '--moduleResolution', resolution, ...files]
      return spawnSync(process.execPath, args, { cwd: project, env, encoding: 'utf8' }).stdout
    }
    expect(check('nodenext', 'nodenext', 'program.mts', 'common.cts')).toBe('')
    expect(check('esnext', 'bundler', 'program.mts')).toBe('')
    expect(check('nodenext', 'nodenext', 'wrong.mts')).toContain(
      "wrong.mts(2,13): error TS2345: Argument of type 'number'",
    )
  })

  test('passes foretoken doctor, with the binary that came with it', () => {
    // npx starts programs through sh, which is part of the system.
    symlinkSync('/bin/sh', join(folder, 'bin', 'sh'))
    const report = JSON.parse(node(npmProgram('npx'), 'foretoken', 'doctor', '--device', 'cpu', '--json'))
    expect(report.advice.filter((each: string) => /self-test|native core/.test(each))).toEqual([])
    expect(report).toMatchObject({ ok: true, versions: { foretoken: version } })
    const binary = join('node_modules', 'foretoken', 'prebuilds', platform, 'foretoken.node')
    expect(report.binary).toEqual({ file: join(project, binary), version })
  })

  test('has a program that works without npm', () => {
    expect(
      execFileSync(join(project, 'node_modules', '.bin', 'foretoken'), ['--version'], { env, encoding: 'utf8' }),
    ).toBe(`${version}\n`)
  })

  test('says what foretoken build needs where there is no compiler', () => {
    const { status, stderr } = spawnSync(join(project, 'node_modules', '.bin', 'foretoken'), ['build'], {
      ...{ env: { ...env, CXX: '' }, encoding: 'utf8' },
    })
    expect(status).toBe(1)
    expect(stderr).toMatch(/needs a C\+\+20 compiler, CMake 3\.20 or newer, Ninja or make\. Install with:\n\n {4}\S/)
  })
})
