import { jsonLine } from '../run/json-lines-log.js'

/** Prints a command's result on standard output: as one line of JSON, or as text for people. */
export function printResult(json: boolean | undefined, result: object, text: () => string): void {
  process.stdout.write(`${json ? jsonLine(result) : text()}\n`)
}

/** Lines up cells in columns; figures to the right, the first column to the left. */
export function textTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  return rows
    .map((row) => row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  '))
    .join('\n')
}
