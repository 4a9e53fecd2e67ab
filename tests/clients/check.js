// Runs the checks of a client's script one after the other: `node SCRIPT [NAME...]`, by default all whose names end in
// no `_`. Prints a line of JSON for each, {name, error}: error is null, or what was thrown.
//
// The server and the key stand in __OW_API_HOST and __OW_API_KEY, where OpenWhisk's clients look for them.
'use strict'

const assert = require('node:assert/strict')
const { inspect } = require('node:util')

async function run (checks) {
  const asked = process.argv.slice(2)
  for (const name of asked.length ? asked : Object.keys(checks).filter((name) => !name.endsWith('_'))) {
    const error = await checks[name]().then(() => null, (error) => inspect(error, { depth: 5 }))
    console.log(JSON.stringify({ name, error }))
  }
}

// Asks until there is something to see: records and logs are filed after a blocking answer has gone out.
async function until (ask) {
  for (const end = Date.now() + 10_000; ;) {
    const found = await ask().catch((error) => { if (Date.now() > end) throw error })
    if (found) return found
    assert.ok(Date.now() < end, 'nothing came within ten seconds')
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

// What a refusal is to those who use npm's `openwhisk`.
async function refused (request, status, text) {
  const error = await request.then(() => null, (error) => error)
  assert.ok(error, 'was not refused')
  assert.equal(error.statusCode, status, error.message)
  assert.equal(error.name, 'OpenWhiskError')
  assert.ok(error.message.endsWith(`--> "${text}"`), error.message)
  return error
}

// Parameters or annotations as an object.
const keys = (pairs) => Object.fromEntries(pairs.map(({ key, value }) => [key, value]))

module.exports = { keys, refused, run, until }
