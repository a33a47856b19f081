import { z } from 'zod'

// What the sections of the schema are made of. Every field ends with its text: one clause with its unit; the default
// is the schema's own and is printed by whoever prints the text.

/** A whole number of at least `lowest`. */
export const count = (lowest = 1) => z.number().int().min(lowest)

/** A number from 0 to 1. */
export const share = () => z.number().min(0).max(1)

/** A number of at least 0. */
export const amount = () => z.number().nonnegative()

/** A path; relative ones are relative to the working directory. */
export const path = () => z.string().min(1)

/** A section whose fields all have defaults, so that it may be left out. */
export function section<Shape extends z.ZodRawShape>(description: string, shape: Shape) {
  return z
    .strictObject(shape)
    .prefault({} as never)
    .describe(description)
}
