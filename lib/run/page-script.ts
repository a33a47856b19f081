/**
 * The program of a report page: draws every chart of the JSON in `#charts` with uPlot, again when the window or the
 * colour scheme changes. Plain ES2018, since it runs where the report is opened.
 */
export const pageScript = `
(function () {
  'use strict'
  var charts = JSON.parse(document.getElementById('charts').textContent)
  var host = document.getElementById('plots')
  var sync = uPlot.sync('step')
  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim()
  }
  function align(series) {
    var all = new Set()
    series.forEach(function (one) { one.x.forEach(function (x) { all.add(x) }) })
    var xs = Array.from(all).sort(function (a, b) { return a - b })
    return [xs].concat(series.map(function (one) {
      var at = new Map(one.x.map(function (x, i) { return [x, one.y[i]] }))
      return xs.map(function (x) { return at.has(x) ? at.get(x) : null })
    }))
  }
  function text(value) {
    if (value === null || value === undefined) return '–'
    if (value === 0) return '0'
    var size = Math.abs(value)
    if (size >= 1e6 || size < 1e-3) return Number(value.toPrecision(3)).toExponential()
    return String(Number(value.toPrecision(4)))
  }
  function draw(chart) {
    var box = document.createElement('figure')
    var caption = document.createElement('figcaption')
    caption.textContent = chart.title + (chart.unit ? ' (' + chart.unit + ')' : '')
    box.appendChild(caption)
    host.appendChild(box)
    var axis = {
      stroke: color('--muted'), grid: { stroke: color('--line'), width: 1 }, ticks: { stroke: color('--line'), width: 1 },
    }
    new uPlot({
      width: Math.max(240, box.clientWidth),
      height: 230,
      cursor: { sync: { key: sync.key } },
      scales: { x: { time: false }, y: chart.range ? { range: chart.range } : {} },
      axes: [
        Object.assign({}, axis, { label: undefined }),
        Object.assign({}, axis, { size: 64, values: function (_, ticks) { return ticks.map(text) } }),
      ],
      series: [{ label: chart.x || 'step' }].concat(chart.series.map(function (one, i) {
        return {
          label: one.label,
          stroke: color('--series-' + (i % 8)),
          width: 1.5,
          dash: one.dashed ? [6, 4] : undefined,
          spanGaps: true,
          points: { show: one.x.length < 40 },
          value: function (_, value) { return text(value) },
        }
      })),
    }, align(chart.series), box)
  }
  function drawAll() {
    host.textContent = ''
    charts.forEach(draw)
  }
  var waiting
  window.addEventListener('resize', function () {
    clearTimeout(waiting)
    waiting = setTimeout(drawAll, 150)
  })
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll)
  drawAll()
})()
`
