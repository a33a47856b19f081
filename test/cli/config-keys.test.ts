import { expect, it } from 'vitest'
import { configKeysText } from '../../lib/cli/config-arguments.js'

it('docs/config.txt lists the keys of the config as they are (vitest -u writes it anew)', async () => {
  await expect(`${configKeysText()}\n`).toMatchFileSnapshot('../../docs/config.txt')
})
