import { Script } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { type Page, renderPage } from '../../lib/run/page.js'
import { pageScript } from '../../lib/run/page-script.js'
import { elementsOf, textsOf } from './read-html.js'

const nasty = '</script><script>alert(1)</script> & "quotes" <b>\u0000'
const page: Page = {
  title: `A <run> & ${nasty}`,
  lead: nasty,
  tables: [{ title: 'Figures', columns: ['split', nasty], rows: [['easy', nasty]] }],
  charts: [
    { title: nasty, unit: 'nats', series: [{ label: nasty, x: [1, 2, 3], y: [0.5, Number.NaN, 0.25] }] },
    { title: 'Loss', series: [{ label: 'loss', x: [2, 4], y: [1, 2], dashed: true }] },
  ],
  appendix: [{ title: 'empty', columns: ['a'], rows: [] }],
}

describe('a page', () => {
  it('is well-formed HTML whose texts are what was given, whatever they contain', async () => {
    const html = await renderPage(page)
    const elements = elementsOf(html)
    expect(elements.filter(({ name }) => name === 'b')).toEqual([])
    expect(elements.filter(({ name }) => name === 'script')).toHaveLength(3)
    const shown = nasty.replace('\u0000', '\ufffd')
    expect(textsOf(html, 'td')).toEqual(['easy', shown])
    expect(textsOf(html, 'p')).toEqual([shown])
    expect(textsOf(html, 'h2')).toEqual(['Figures'])
  })

  it('holds the data of its charts, with gaps where numbers are not finite', async () => {
    const html = await renderPage(page)
    const json = /<script type="application\/json" id="charts">(.*?)<\/script>/s.exec(html)![1]!
    const charts = JSON.parse(json)
    expect(charts[0].title).toBe(nasty)
    expect(charts[0].series[0].y).toEqual([0.5, null, 0.25])
    expect(charts[1].series[0]).toEqual({ label: 'loss', x: [2, 4], y: [1, 2], dashed: true })
  })

  it('needs nothing from elsewhere', async () => {
    const html = await renderPage({ ...page, title: 'x', lead: 'x' })
    expect(html).not.toMatch(/(?:src|href)\s*=|@import|url\(/)
    expect(html).toContain('uPlot')
  })

  it('draws every chart with the values at their steps, and again in other colours', async () => {
    const html = await renderPage(page)
    const drawn = runPage(html)
    drawn.draws.length = 0
    drawn.changeColours()
    expect(drawn.draws).toEqual([
      {
        title: `${nasty} (nats)`,
        labels: ['step', nasty],
        data: [
          [1, 2, 3],
          [0.5, null, 0.25],
        ],
      },
      {
        title: 'Loss',
        labels: ['step', 'loss'],
        data: [
          [2, 4],
          [1, 2],
        ],
      },
    ])
  })
})

describe('the program of a page', () => {
  it('lays series with other steps beside each other', () => {
    const charts = [
      {
        title: 'a',
        series: [
          { label: 'p', x: [1, 3], y: [10, 30] },
          { label: 'q', x: [2, 3], y: [5, 6] },
        ],
      },
    ]
    const { draws } = runScript(JSON.stringify(charts))
    expect(draws[0]!.data).toEqual([
      [1, 2, 3],
      [10, null, 30],
      [null, 5, 6],
    ])
  })
})

interface Draw {
  title: string
  labels: string[]
  data: (number | null)[][]
}

function runPage(html: string) {
  return runScript(/<script type="application\/json" id="charts">(.*?)<\/script>/s.exec(html)![1]!)
}

/** Runs the page's program against the few parts of a browser that it touches; what it draws is collected. */
function runScript(json: string) {
  const draws: Draw[] = []
  const listeners: (() => void)[] = []
  const element = () => ({
    textContent: '',
    clientWidth: 500,
    children: [] as { textContent: string }[],
    appendChild(child: { textContent: string }) {
      this.children.push(child)
    },
  })
  const host = element()
  const plot = Object.assign(
    function (
      this: unknown,
      options: { series: { label: string }[] },
      data: Draw['data'],
      box: ReturnType<typeof element>,
    ) {
      const labels = options.series.map(({ label }) => label)
      draws.push({ title: box.children[0]!.textContent, labels, data: JSON.parse(JSON.stringify(data)) })
    },
    { sync: () => ({ key: 'step' }) },
  )
  const document = {
    documentElement: {},
    getElementById: (id: string) => (id === 'charts' ? { textContent: json } : host),
    createElement: element,
  }
  const window = {
    addEventListener: () => undefined,
    matchMedia: () => ({ addEventListener: (_: string, listener: () => void) => listeners.push(listener) }),
  }
  const getComputedStyle = () => ({ getPropertyValue: () => ' #123456 ' })
  new Script(pageScript).runInNewContext({ document, window, uPlot: plot, getComputedStyle, setTimeout, clearTimeout })
  return { draws, changeColours: () => listeners.map((listener) => listener()) }
}
