// `node --import ./scripts/typescript.mjs file.ts`: runs TypeScript on Node 20, which does not strip types by itself.

import { register } from 'node:module'

register('./typescript-hooks.mjs', import.meta.url)
