// The floor of a warm call: /init and /run over keep-alive HTTP in one plain Node process, as OpenWhisk's Node.js image
// has them, without a web framework. Prints its port when it listens.
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

async function answer (request, response, body) {
  const message = JSON.parse(body)
  const result = request.url === '/init' ? init(message) : await run(message)
  const text = Buffer.from(JSON.stringify(result))
  response.writeHead(200, { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': text.length })
  response.end(text)
}

const server = http.createServer((request, response) => {
  const parts = []
  request.on('data', (chunk) => parts.push(chunk))
  request.on('end', () => answer(request, response, Buffer.concat(parts).toString()))
})
server.keepAliveTimeout = 0
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
