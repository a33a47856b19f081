import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: { alias: { foretoken: new URL('lib/index.ts', import.meta.url).pathname } },
  test: {
    include: ['test/**/*.test.ts'],
    // A process per file: each has its own engine threads, and a crash of the native core names its file.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
})
