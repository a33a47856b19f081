import { copyFile, mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseConfigSource } from '../../lib/run/config-source.js'
import { resolveConfig } from '../../lib/run/load-config.js'
import '../cli/foretoken.js'
import { type Block, type Page, parsePage, placeOf, readPages, root } from './pages.js'
import { checkTypes, writePrograms } from './programs.js'
import { makeWorld, removeModel, type World } from './world.js'

// A page is walked through as its reader would: files that it shows are saved under the name in their first line, its
// commands and programs run in order. `<!-- not run: why -->` before a block says what tests cannot do.

const pages = readPages()
const blocks = pages.flatMap((page) => page.blocks)
const languages = ['ts', 'js', 'sh', 'yaml', 'json', 'text']

/** Begins with nothing but a text, which is what it promises. */
const beginsEmpty = (page: Page) => page.path === join('docs', 'getting-started.md')

/** What a block is to its page; undefined for drawings, outputs, and what says why it cannot run. */
function roleOf(block: Block): 'file' | 'commands' | 'program' | undefined {
  if (block.file !== undefined) return 'file'
  if (block.notRun !== undefined) return undefined
  if (block.language === 'sh') return 'commands'
  return block.language === 'ts' || block.language === 'js' ? 'program' : undefined
}

test(`every block says what it is: ${languages.join(', ')} (text: a drawing or an output)`, () => {
  expect(blocks.filter(({ language }) => !languages.includes(language)).map(placeOf)).toEqual([])
})

test('no command hides in a block of text', () => {
  const commands = blocks.filter(
    ({ language, text }) => language === 'text' && /^\$? ?(npx|npm|foretoken) /m.test(text),
  )
  expect(commands.map(placeOf)).toEqual([])
})

test('a block that is not run gives its reason', () => {
  const [marked, bare] = parsePage(
    'x.md',
    '<!-- not run: needs a GPU -->\n```sh\na\n```\n\ntext\n```sh\nb\n```\n',
  ).blocks
  expect([marked!.notRun, bare!.notRun]).toEqual(['needs a GPU', undefined])
  for (const block of blocks) if (block.notRun !== undefined) expect(block.notRun.length).toBeGreaterThan(10)
})

test('every config is accepted by the schema', () => {
  for (const block of blocks.filter(({ language }) => language === 'yaml')) {
    const source = parseConfigSource(placeOf(block), block.text)
    // A part of a config is completed by a model.
    source.values.model ??= { path: 'model' }
    expect(() => resolveConfig({ source })).not.toThrow()
  }
})

test('every JSON parses', () => {
  for (const block of blocks.filter(({ language }) => language === 'json'))
    expect(() => JSON.parse(block.text), placeOf(block)).not.toThrow()
})

test('a file that a page shows is used by a later command of it', () => {
  const unused = pages.flatMap((page) =>
    page.blocks.filter(
      (block, i) =>
        block.file !== undefined &&
        !page.blocks.slice(i + 1).some(({ text, language }) => language !== 'text' && text.includes(block.file!)),
    ),
  )
  expect(unused.map(placeOf)).toEqual([])
})

describe('programs in TypeScript', () => {
  let world: World
  beforeAll(async () => {
    world = await makeWorld()
  })
  afterAll(() => world.remove())

  test('are right for the compiler, strictly', async () => {
    const programs = blocks.filter(({ language }) => language === 'ts')
    expect(programs.length).toBeGreaterThan(5)
    expect(await checkTypes(world.folder, programs)).toEqual([])
  })

  test('a wrong one is found, with its page and line', async () => {
    const [block] = parsePage('x.md', "```ts\nimport { Engine } from 'foretoken'\nawait Engine.open(7)\n```\n").blocks
    expect(await checkTypes(world.folder, [block!])).toEqual([
      "x.md:3: Argument of type 'number' is not assignable to parameter of type 'string'.",
    ])
  })
})

afterAll(removeModel)

describe.each(pages.filter((page) => page.blocks.some(roleOf)))('$path', (page) => {
  let world: World
  beforeAll(async () => {
    world = await makeWorld({ empty: beginsEmpty(page) })
    await mkdir(join(world.folder, 'examples', 'demo'), { recursive: true })
    for (const name of ['tiny-shakespeare.yaml', 'omni-math.yaml'])
      await copyFile(join(root, 'examples', name), join(world.folder, 'examples', name))
  })
  afterAll(() => world.remove())

  // One test a page: later blocks need what earlier ones left.
  test('runs from beginning to end', async () => {
    const programs = await writePrograms(
      world.folder,
      page.blocks.filter((block) => roleOf(block) === 'program'),
    )
    for (const block of page.blocks) {
      const role = roleOf(block)
      if (role === undefined) continue
      if (role === 'file') {
        const file = join(world.folder, block.file!)
        await mkdir(dirname(file), { recursive: true })
        await writeFile(file, block.text)
        continue
      }
      const script = role === 'commands' ? block.text : `node ${programs.get(placeOf(block))}`
      const { status, output } = await world.run(script)
      expect(status, `${placeOf(block)}\n${output}`).toBe(0)
    }
  })
})
