// How hard a text is for a model: every token coloured by how undecided the model was before it, and a histogram, as
// one HTML file that needs nothing else. Positions above 0.5, 1.0 and 1.5 nats are the splits of evaluations.
//
//   node plot-difficulty.js MODEL TEXT [OUTPUT]

import { readFile, writeFile } from 'node:fs/promises'
import { DifficultyStatistics, Document, Engine, renderPage, scorePlain, Tokenizer } from 'foretoken'

const [model, file, output = 'difficulty.html'] = process.argv.slice(2) as [string, string, string?]

await using engine = await Engine.open(model)
const tokenizer = await Tokenizer.open(model)
const document = Document.tokenize(tokenizer, await readFile(file, 'utf8'))

// Long texts are scored in parts that overlap by half, so that most tokens have a long context.
const length = Math.min(1024, engine.config.maxPositionEmbeddings - 1)
const overlap = Math.floor(length / 2)
const parts = document.windows(length, overlap)
const scores = await scorePlain(engine, tokenizer, parts, { topK: 16 })
const entropies = scores.flatMap(({ entropy }, i) => [...(i === 0 ? entropy : entropy.subarray(overlap))])

const statistics = new DifficultyStatistics()
statistics.add(entropies)
const { count, mean, above, histogram } = statistics.summary()
const percent = (share: number) => `${(100 * share).toFixed(1)} %`

const page = await renderPage({
  title: `Difficulty of ${file}`,
  lead: `${document.length} tokens, judged by ${model}; mean entropy over the 16 likeliest tokens ${mean.toFixed(3)} nats.`,
  tables: [
    {
      title: 'Positions by split',
      columns: ['split', 'nats', 'share'],
      rows: [
        ['easy', '> 0.5', percent(above.easy)],
        ['medium', '> 1.0', percent(above.medium)],
        ['hard', '> 1.5', percent(above.hard)],
      ],
    },
  ],
  charts: [
    {
      title: 'Histogram',
      unit: 'positions',
      x: 'entropy in nats',
      series: [
        {
          label: 'positions',
          x: histogram.counts.map((_, i) => (i * histogram.limit) / histogram.counts.length),
          y: histogram.counts,
        },
      ],
    },
  ],
})

// Bytes that are no character of their own, in the middle of one, are shown with the token that ends it.
const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
const decoder = new TextDecoder()
const tokens = entropies.map((entropy, t) => {
  const strength = Number.isNaN(entropy) ? 0 : Math.min(1, entropy / histogram.limit)
  const text = escaped(decoder.decode(document.tokenBytes(t), { stream: true }))
  const style = `background: rgb(240 80 40 / ${strength.toFixed(2)})`
  return `<span style="${style}" title="${entropy.toFixed(2)} nats">${text}</span>`
})
const coloured = `<h2>The text</h2>\n<p style="white-space: pre-wrap; line-height: 1.8">${tokens.join('')}</p>`

const plots = '<div id="plots"></div>'
await writeFile(
  output,
  page.replace(plots, () => `${plots}\n${coloured}`),
)
console.log({ output, positions: count, mean, ...above })
