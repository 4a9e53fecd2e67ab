// The floor of a warm call: /init and /run over keep-alive HTTP in one Node process, nothing around it. With `express` it
// has what OpenWhisk's Node.js image has: express and its JSON body parser; with `plain`, Node's own server alone.
// Prints its port when it listens.
'use strict'

const http = require('node:http')
const vm = require('node:vm')

let action = null

function init (message) {
  action = vm.runInThisContext(`(function () { ${message.value.code}\n;return ${message.value.main || 'main'} })`)()
  return { OK: true }
}

async function run (message) {
  for (const name of Object.keys(message)) {
    if (name !== 'value' && typeof message[name] === 'string') process.env['__OW_' + name.toUpperCase()] = message[name]
  }
  return action(message.value)
}

function withExpress () {
  const express = require('express')
  const app = express()
  app.use(express.json({ limit: '48mb', strict: false }))
  app.post('/init', (request, response) => response.status(200).json(init(request.body)))
  app.post('/run', async (request, response) => response.status(200).json(await run(request.body)))
  return http.createServer(app)
}

function plain () {
  return http.createServer((request, response) => {
    const parts = []
    request.on('data', (chunk) => parts.push(chunk))
    request.on('end', async () => {
      const message = JSON.parse(Buffer.concat(parts).toString())
      const text = Buffer.from(JSON.stringify(request.url === '/init' ? init(message) : await run(message)))
      response.writeHead(200, { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': text.length })
      response.end(text)
    })
  })
}

const server = process.argv[2] === 'express' ? withExpress() : plain()
server.keepAliveTimeout = 0
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
