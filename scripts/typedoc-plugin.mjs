// What `npm run docs` knows beside typedoc: the keys of the config have their texts in the schema, not in comments; and
// every public name needs a comment, but the fields of an unnamed object are described by whatever holds it (which
// typedoc's own check of this, notDocumented, cannot tell apart).

import { Application, Comment, Converter, ReflectionKind } from 'typedoc'
import { configFields } from '../dist/run/config-fields.js'
import { configSchema } from '../dist/run/config-schema.js'

const kinds =
  ReflectionKind.Class |
  ReflectionKind.Interface |
  ReflectionKind.Function |
  ReflectionKind.Variable |
  ReflectionKind.TypeAlias |
  ReflectionKind.Property |
  ReflectionKind.Method |
  ReflectionKind.Accessor

/** What is nested in a reflection, from the outermost to itself. */
function pathOf(reflection) {
  const path = []
  for (let at = reflection; at?.parent; at = at.parent) path.unshift(at)
  return path
}

function isInUnnamed(reflection) {
  return pathOf(reflection).some(({ kind }) => kind === ReflectionKind.TypeLiteral)
}

function isDocumented(reflection) {
  const { signatures = [], getSignature, setSignature } = reflection
  return [reflection, ...signatures, getSignature, setSignature].some((one) => one?.hasComment())
}

/** @param {Application} app */
export function load(app) {
  const texts = new Map(configFields(configSchema).map(({ path, description }) => [path, description]))

  app.converter.on(Converter.EVENT_RESOLVE_END, ({ project }) => {
    for (const property of project.getReflectionsByKind(ReflectionKind.Property)) {
      const [owner, ...path] = pathOf(property).filter(({ kind }) => kind !== ReflectionKind.TypeLiteral)
      const text = texts.get(path.map(({ name }) => name).join('.'))
      if (!owner.name.startsWith('RunConfig') || property.hasComment() || text === undefined) continue
      property.comment = new Comment([{ kind: 'text', text }])
    }
  })

  app.on(Application.EVENT_VALIDATE_PROJECT, (project) => {
    for (const reflection of project.getReflectionsByKind(kinds)) {
      if (isDocumented(reflection) || isInUnnamed(reflection) || reflection.inheritedFrom) continue
      app.logger.validationWarning(`${reflection.getFriendlyFullName()} has no comment`)
    }
  })
}
