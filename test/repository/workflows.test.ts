import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { parse } from 'yaml'

const root = join(import.meta.dirname, '..', '..')
const folder = join(root, '.github', 'workflows')
const { scripts, engines } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

interface Step {
  uses?: string
  run?: string
}

interface Job {
  needs?: string | string[]
  steps?: Step[]
  uses?: string
  strategy?: { matrix: { node?: number[] } }
  permissions?: Record<string, string>
}

function jobsOf(file: string): Record<string, Job> {
  return parse(readFileSync(join(folder, file), 'utf8')).jobs
}

function steps(jobs: Record<string, Job>): Step[] {
  return Object.values(jobs).flatMap((job) => job.steps ?? [])
}

describe.each(readdirSync(folder))('the workflow %s', (file) => {
  const jobs = jobsOf(file)

  test('names actions by their major version, and only those of GitHub', () => {
    const used = steps(jobs).flatMap(({ uses }) => uses ?? [])
    expect(used.length).toBeGreaterThan(0)
    for (const name of used) expect(name).toMatch(/^actions\/[\w-]+@v\d+$/)
  })

  test('runs scripts that exist', () => {
    const called = steps(jobs).flatMap(({ run = '' }) =>
      [...run.matchAll(/\bnpm run ([\w:-]+)/g)].map((match) => match[1]!),
    )
    for (const name of called) expect(scripts).toHaveProperty([name])
    expect(called).toContain('release:check')
  })

  test('waits for jobs that exist', () => {
    for (const { needs = [] } of Object.values(jobs))
      for (const name of [needs].flat()) expect(jobs).toHaveProperty([name])
  })
})

test('every supported major version of Node is tested', () => {
  const nodes = jobsOf('ci.yml').test!.strategy!.matrix.node!
  expect(nodes).toEqual([20, 22, 24])
  expect(engines.node).toMatch(new RegExp(`^>=${nodes[0]}\\.`))
})

test('only the job that publishes may identify itself to npm', () => {
  const release = jobsOf('release.yml')
  const privileged = Object.entries(release).filter(([, { permissions }]) => permissions?.['id-token'] === 'write')
  expect(privileged.map(([name]) => name)).toEqual(['publish'])
  expect(steps(release).some(({ run }) => /npm publish --provenance/.test(run ?? ''))).toBe(true)
})
