import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { pageScript } from './page-script.js'

/** A line of a chart. */
export interface ChartSeries {
  /** Its name in the legend. */
  label: string
  /** Where the points are. */
  x: readonly number[]
  /** Their values; null leaves a gap. */
  y: readonly (number | null)[]
  /** Whether the line is dashed. */
  dashed?: boolean
}

/** A chart of a page. Charts share their cursor. */
export interface Chart {
  /** What it shows. */
  title: string
  /** Of y, in brackets after the title. */
  unit?: string
  /** What the x axis counts. Default step. */
  x?: string
  /** Least and greatest y; fitted to the data where left out. */
  range?: readonly [number, number]
  /** Its lines. */
  series: readonly ChartSeries[]
}

/** A table of a page: a heading, a row of titles, rows of cells. Cells are text and are escaped. */
export interface PageTable {
  /** Its heading. */
  title: string
  /** A sentence below it. */
  note?: string
  /** Titles of the columns. */
  columns: readonly string[]
  /** Cells by row; a table without rows is left out. */
  rows: readonly (readonly string[])[]
  /** Whether cells hold running text instead of figures. */
  prose?: boolean
}

/** What a page shows, from top to bottom. */
export interface Page {
  /** Of the page. */
  title: string
  /** A sentence below it. */
  lead: string
  /** Above the charts. */
  tables: readonly PageTable[]
  /** In a grid. */
  charts: readonly Chart[]
  /** Below the charts. */
  appendix?: readonly PageTable[]
}

/**
 * Writes a page as one HTML file that needs nothing else: uPlot, styles and data are inside, so that it works from
 * disk and without a network. All texts are escaped.
 */
export async function renderPage(page: Page): Promise<string> {
  const [plotScript, plotStyle] = await plotFiles()
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(page.title)}</title>
<style>${plotStyle}${style}</style>
</head>
<body>
<h1>${escapeHtml(page.title)}</h1>
<p>${escapeHtml(page.lead)}</p>
${page.tables.map(renderTable).join('\n')}
<div id="plots"></div>
${(page.appendix ?? []).map(renderTable).join('\n')}
<!-- Neither data nor program can end the element that holds it. -->
<script type="application/json" id="charts">${JSON.stringify(page.charts.map(finiteOnly)).replaceAll('<', '\\u003c')}</script>
<script>${plotScript.replaceAll('</', '<\\/')}</script>
<script>${pageScript}</script>
</body>
</html>
`
}

/** A text as HTML shows it. */
export function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => entities[character]!).replaceAll(control, '\ufffd')
}

function renderTable({ title, note, columns, rows, prose }: PageTable): string {
  if (rows.length === 0) return ''
  const row = (cells: readonly string[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join('')}</tr>`
  return `<h2>${escapeHtml(title)}</h2>${note === undefined ? '' : `\n<p>${escapeHtml(note)}</p>`}
<div class="scroll"><table${prose ? ' class="prose"' : ''}>
<thead>${row(columns, 'th')}</thead>
<tbody>
${rows.map((cells) => row(cells, 'td')).join('\n')}
</tbody>
</table></div>`
}

async function plotFiles(): Promise<[script: string, style: string]> {
  const require = createRequire(import.meta.url)
  const read = (name: string) => readFile(require.resolve(`uplot/dist/${name}`), 'utf8')
  return Promise.all([read('uPlot.iife.min.js'), read('uPlot.min.css')])
}

function finiteOnly(chart: Chart): Chart {
  const series = chart.series.map((one) => ({
    ...one,
    y: one.y.map((value) => (value !== null && Number.isFinite(value) ? value : null)),
  }))
  return { ...chart, series }
}

const entities: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }
// Characters that HTML does not have; models do write them.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const control = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g

const style = `
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1e21; --muted: #646a73; --line: #e3e5e8;
  --series-0: #1f6feb; --series-1: #d9480f; --series-2: #2b8a3e; --series-3: #9c36b5;
  --series-4: #0b7285; --series-5: #c2255c; --series-6: #846200; --series-7: #495057; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e6e7e9; --muted: #9aa1ab; --line: #2c3036;
  --series-0: #6ea8fe; --series-1: #ff922b; --series-2: #69db7c; --series-3: #da77f2;
  --series-4: #3bc9db; --series-5: #f783ac; --series-6: #ffd43b; --series-7: #adb5bd; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 1180px; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
#plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); gap: 1.5rem;
  margin-top: 2rem; }
figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .75rem .3rem 0; text-align: left; vertical-align: top; }
th { color: var(--muted); font-weight: 500; white-space: nowrap; }
.prose td { font: 12.5px/1.45 ui-monospace, monospace; max-width: 26rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.u-legend { font-size: 12px; } .u-legend th, .u-legend td { border: 0; padding: 2px 4px; }
`
