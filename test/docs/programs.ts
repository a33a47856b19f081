import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import ts from 'typescript'
import { type Block, placeOf } from './pages.js'

const options: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleDetection: ts.ModuleDetectionKind.Force,
  lib: ['lib.es2023.d.ts', 'lib.esnext.disposable.d.ts'],
  types: ['node'],
  strict: true,
  noUncheckedIndexedAccess: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: true,
  noEmit: true,
}

/** What `<!-- given: … -->` can name beside the package's own exports. */
const givenSource = `
import { Corpus, Document, Engine, prefixMatchReward, Prompt, TokenForest, Tokenizer } from 'foretoken'
export const engine = await Engine.open('model')
export const tokenizer = await Tokenizer.open('model')
export const corpus = await Corpus.open({ sources: [{ path: 'text.txt', unit: 'paragraph' }], heldOut: 0.2 })
export const reward = prefixMatchReward
export const document = Document.tokenize(tokenizer, 'The quick brown fox jumps over the lazy dog.')
export const ids = document.ids
export const prompt = Prompt.compile(tokenizer, { template: '{context}', chat: 'never' })
/** A forest of a context and four rollouts, and their advantages. */
export const forest = new TokenForest()
export const context = forest.add(null, ids)
export const { rollouts } = await engine.sample(forest, { from: [context], n: 4, maxTokens: 8 })
export const segments = rollouts.map(({ segment, tokens }) => forest.add(segment, tokens))
export const advantages = [1, -1, 0.5, -0.5]
`
const givenNames = [...givenSource.matchAll(/^export const (?:\{ )?(\w+)/gm)].map(([, name]) => name!)

/** A block as a module of its own; what it is given is imported on its first line, so that lines stay the same. */
function moduleOf(block: Block): string {
  const [own, ofPackage] = [true, false].map((is) => block.given.filter((name) => givenNames.includes(name) === is))
  const imports = [
    own!.length > 0 ? `import { ${own!.join(', ')} } from './given.js';` : '',
    ofPackage!.length > 0 ? `import { ${ofPackage!.join(', ')} } from 'foretoken';` : '',
  ]
  return `${imports.join('')}${block.text}`
}

/** Writes the TypeScript blocks into a world, checks the types of all at once, and gives what is wrong. */
export async function checkTypes(folder: string, blocks: readonly Block[]): Promise<string[]> {
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }')
  await writeFile(join(folder, 'given.ts'), givenSource)
  const files = new Map<string, Block>()
  for (const [i, block] of blocks.entries()) {
    const file = join(folder, `block-${i}.ts`)
    files.set(file, block)
    await writeFile(file, moduleOf(block))
  }
  const program = ts.createProgram([join(folder, 'given.ts'), ...files.keys()], options, {
    ...ts.createCompilerHost(options),
    getCurrentDirectory: () => folder,
  })
  return ts.getPreEmitDiagnostics(program).map(({ file, start = 0, messageText }) => {
    const message = ts.flattenDiagnosticMessageText(messageText, '\n')
    const block = file && files.get(file.fileName)
    if (!file || !block) return `${file?.fileName ?? ''}: ${message}`
    return `${block.page}:${block.line + 1 + file.getLineAndCharacterOfPosition(start).line}: ${message}`
  })
}

/** Writes the blocks into a world as JavaScript that Node runs; gives the file of each by its place. */
export async function writePrograms(folder: string, blocks: readonly Block[]): Promise<Map<string, string>> {
  const compilerOptions = { ...options, module: ts.ModuleKind.ESNext }
  const compile = (source: string) => ts.transpileModule(source, { compilerOptions }).outputText
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }')
  await writeFile(join(folder, 'given.js'), compile(givenSource))
  const files = new Map<string, string>()
  for (const [i, block] of blocks.entries()) {
    const file = `block-${i}.js`
    await writeFile(join(folder, file), compile(moduleOf(block)))
    files.set(placeOf(block), file)
  }
  return files
}
