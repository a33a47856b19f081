import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { commands } from '../../lib/cli/commands.js'
import { configFields } from '../../lib/run/config-fields.js'
import { parseConfigFlags } from '../../lib/run/config-flags.js'
import { configSchema } from '../../lib/run/config-schema.js'
import { type Page, parsePage, readPages, root } from './pages.js'

// What stands in running text, `like this`, cannot be run, but it can be looked up.

const fields = configFields(configSchema)
const sections = new Set(fields.filter(({ kind }) => kind === 'section').map(({ path }) => path.split('.')[0]))
const scripts = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).scripts as Record<string, string>
const known = new Map(commands.map((create) => create()).map((command) => [command.name(), command]))
const takesConfig = new Set(['train', 'pretrain', 'evaluate'])

/** What is wrong with a command line of the program, or nothing. */
function wrongCommand(line: string): string | undefined {
  const [, name = '', ...words] = line.split(/\s+(?=(?:[^'"]*['"][^'"]*['"])*[^'"]*$)/)
  if (name === '' || name.startsWith('-')) return undefined
  const command = known.get(name)
  if (!command) return `foretoken has no command ${name}`
  for (const word of words) {
    if (!word.startsWith('-') || word === '--help' || /^-+$/.test(word)) continue
    const flag = word.split('=')[0]!
    if (command.options.some(({ long, short }) => long === flag || short === flag)) continue
    if (!takesConfig.has(name)) return `foretoken ${name} has no ${flag}`
    try {
      parseConfigFlags([`${flag}=0`], fields)
    } catch (error) {
      return (error as Error).message
    }
  }
  return undefined
}

/** Whether `optimizer.learningRate` and such are keys of the config; names of files and maps below keys are not meant. */
function wrongKey(code: string): string | undefined {
  const [first, ...rest] = code.split('.')
  if (!sections.has(first) || rest.length === 0 || !/^[a-zA-Z]+(\.[a-zA-Z]+)+$/.test(code)) return undefined
  if (/\.(ts|js|mjs|yaml|json|jsonl|html|index|safetensors|txt|md|h|cpp)$/.test(code) && rest.length === 1) {
    if (!fields.some(({ path }) => path === code)) return undefined
  }
  if (fields.some(({ path, kind }) => path === code || (kind === 'either' && code.startsWith(`${path}.`))))
    return undefined
  return `the config has no ${code}`
}

function wrongCode(page: Page): string[] {
  const inBlocks = page.blocks
    .filter(({ language }) => language === 'sh')
    .flatMap(({ text, line }) => {
      const lines = text.replaceAll('\\\n', ' ').split('\n')
      return lines.map((one, i) => ({ text: one.replace(/\s+#.*$/, ''), line: line + 1 + i }))
    })
  return [...page.code, ...inBlocks].flatMap(({ text, line }) => {
    const command = text.trim().replace(/^npx /, '')
    const script = /^npm run ([\w:-]+)/.exec(command)?.[1]
    const problem =
      script !== undefined && scripts[script] === undefined
        ? `package.json has no script ${script}`
        : /^foretoken( |$)/.test(command)
          ? wrongCommand(command)
          : wrongKey(command)
    return problem === undefined ? [] : [`${page.path}:${line}: ${problem}`]
  })
}

test('every command, flag, key of the config and npm script that the pages name exists', () => {
  expect(readPages().flatMap(wrongCode)).toEqual([])
})

test('the commands in the comments of the example configs exist', () => {
  const folder = join(root, 'examples')
  const configs = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.yaml'))
  const lines = configs.flatMap((name) => {
    const comments = readFileSync(join(folder, name), 'utf8').replaceAll(/\\\n# +/g, ' ')
    return [...comments.matchAll(/^# .*?(foretoken (?:filter|train|pretrain|evaluate) [^`\n]+)$/gm)].map(
      ([, line]) => line!,
    )
  })
  expect(lines.length).toBeGreaterThan(3)
  expect(lines.map(wrongCommand).filter((problem) => problem !== undefined)).toEqual([])
})

test('examples/README.md lists every example, and a test runs every program', () => {
  const files = readdirSync(join(root, 'examples'), { recursive: true, encoding: 'utf8' })
  const list = readFileSync(join(root, 'examples', 'README.md'), 'utf8')
  const tests = readFileSync(join(root, 'test', 'examples', 'examples.test.ts'), 'utf8')
  const examples = files.filter((name) => /\.(ts|yaml)$/.test(name))
  expect(examples.filter((name) => !list.includes(`](${name})`))).toEqual([])
  expect(examples.filter((name) => name.endsWith('.ts') && !tests.includes(name.replace(/ts$/, 'js')))).toEqual([])
})

test('a command, a flag, a key and a script that do not exist are each found', () => {
  const page = parsePage(
    'x.md',
    '`foretoken teach` `foretoken score ./model --loud` `foretoken train --rpt.clap 1` `rpt.clap` `npm run nothing`\n' +
      "`foretoken train run.yaml --rpt.clip '[0.2, 0.3]'` `rpt.clip` `rpt.yaml` `foretoken score ./model 'a --b' --json`\n",
  )
  expect(wrongCode(page)).toEqual([
    'x.md:1: foretoken has no command teach',
    'x.md:1: foretoken score has no --loud',
    'x.md:1: --rpt.clap is not a known option; did you mean --rpt.clip?',
    'x.md:1: the config has no rpt.clap',
    'x.md:1: package.json has no script nothing',
  ])
})
