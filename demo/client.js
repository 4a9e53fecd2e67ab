// Uses OpenWhisk's own client, as an application would: invokes an action with the JSON on standard input.
//
// usage: node client.js ACTION. The client itself reads __OW_API_HOST and __OW_API_KEY. Prints one JSON object:
// {result, newest: the name in the newest record, missing: {status, error} for an action that does not exist}.
'use strict'

const fs = require('node:fs')
const openwhisk = require('openwhisk')

async function main (name) {
  const client = openwhisk()
  const params = JSON.parse(fs.readFileSync(0))
  const result = await client.actions.invoke({ name, params, blocking: true, result: true })
  const [newest] = await client.activations.list({ name, limit: 1 })
  const missing = await client.actions.get({ name: `no-${name}` }).then(
    () => null,
    (error) => ({ status: error.statusCode, error: error.error.error })
  )
  console.log(JSON.stringify({ result, newest: newest.name, missing }))
}

main(process.argv[2]).catch((error) => {
  console.error(error)
  process.exitCode = 1
})
