// What a script and its test say to each other: one line of JSON at a time.

import { createInterface } from 'node:readline'

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

/** What the test says next; undefined when it has nothing more to say. */
export async function hear() {
  const { value, done } = await lines.next()
  return done ? undefined : JSON.parse(value)
}

/** Tells the test something. */
export function say(something) {
  process.stdout.write(`${JSON.stringify(something)}\n`)
}

/** Does one operation, whose name is that of its column in README.md, and tells the test that it passed. */
export async function operation(name, run) {
  try {
    await run()
  } catch (error) {
    throw new Error(name, { cause: error })
  }
  say({ passed: name })
}
