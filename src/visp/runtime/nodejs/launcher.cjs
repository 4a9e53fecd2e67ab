// Runs an action of a nodejs or bun kind inside its container: JSON lines on standard input, replies on descriptor 3.
//
// The first line is init: {"value": {name, main, binary, code | folder, env}}. Every later line is a run body:
// {"value", "namespace", "action_name", "action_version", "activation_id", "transaction_id", "deadline", "api_key"?}.
// A reply is what the kind's official image answers: a plain line for 200, a line that begins with "!" for an error status.
// If init's value has "concurrency", up to so many runs come at once: init's answer says "concurrent", and each reply to a run
// begins with "@<activation_id> ".
// The line {"rest":true} says that nothing is under way and a pause is near; it has no answer. {"collect":<offset>} asks for what was
// compiled, piece by piece: {"compiled":<base64>}, empty at the end.
// Standard output and error are the logs, written before the reply. A result that comes in parts, and what several runs at
// once need, are of extras.cjs.
'use strict'

const fs = require('node:fs')
const path = require('node:path')
const vm = require('node:vm')
const IS_BUN = 'bun' in process.versions
const { createRequire } = IS_BUN ? require('node:module') : module.constructor // Node's own `module`, which is loaded already
const { pathToFileURL } = require('node:url')

const REPLIES = 3
const EXIT_OF_TERMINATED = 0
const NEWLINE = 10
const CHUNK_BYTES = 65536
const STEM_CELL_MS = 20
const LARGEST_SEED = 0x7ffffffe
const TWICE = 'Cannot initialize the action more than once.'
const IDENTIFIERS = /^[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*$/

// Where copies of this process go on, each in a container of its own: what they would have in common is seen to.
const isCopied = 'VISP_COPIED' in process.env
delete process.env.VISP_COPIED

let action = null // the user's function, once init has found it
let several = null // what runs that are under way at once need; null where they come one after the other
let streaming = null // the run whose result comes in parts, where it is the only one
let isListening = false
let goOn = null // what to do after the next reply: until then nothing is read
let isStopped = false // after a synchronous throw the official image refuses further runs
const shown = Object.create(null) // environment variables as they were last set: setting one is slow

// Node queues what a full pipe does not take, and the reply would overtake it: both streams wait for the pipe instead.
// They are made when they are first used, as Node does: they need `net`, which takes as long to load as all else together.
for (const name of IS_BUN ? [] : ['stdout', 'stderr']) {
  const made = Object.getOwnPropertyDescriptor(process, name)
  Object.defineProperty(process, name, {
    ...made,
    get () {
      Object.defineProperty(process, name, made)
      process[name]._handle?.setBlocking?.(true)
      return process[name]
    }
  })
}

// Bun has no such switch: what is printed there is written by us.
for (const [name, descriptor] of IS_BUN ? [['stdout', 1], ['stderr', 2]] : []) {
  process[name].write = (chunk, encoding, then) => {
    writeAll(descriptor, typeof chunk === 'string' ? Buffer.from(chunk, typeof encoding === 'string' ? encoding : 'utf8') : chunk)
    const called = typeof encoding === 'function' ? encoding : then
    if (called) process.nextTick(called)
    return true
  }
}

function writeAll (descriptor, bytes) {
  let at = 0
  while (at < bytes.length) {
    try {
      at += fs.writeSync(descriptor, bytes, at)
    } catch (error) {
      if (error.code !== 'EAGAIN') process.exit(EXIT_OF_TERMINATED) // nobody listens any more
    }
  }
}

const writeReply = (bytes) => writeAll(REPLIES, bytes)

function write (text) {
  writeReply(Buffer.from(text + '\n'))
  readOn()
}

function readOn () {
  if (goOn !== null) {
    setImmediate(goOn)
    goOn = null
  }
}

const extras = () => require('./' + path.basename(__filename).replace('launcher', 'extras'))

const failed = (sentence) => '!' + JSON.stringify({ error: sentence })
const fail = (sentence) => write(failed(sentence))

function show (name, value) {
  if (typeof value !== 'string' || shown[name] === value) return
  shown[name] = value
  process.env['__OW_' + name.toUpperCase()] = value
}

// ── init ────────────────────────────────────────────────────────────────────────────────────────────────────────

async function init (value) {
  for (const [name, text] of Object.entries(value.env || {})) process.env[name] = text
  if (process.env.HTTPS_PROXY && !knowsProxies) lead()
  const main = value.main || 'main'
  if (value.concurrency > 1) several = new (extras().Several)(writeReply)
  try {
    if (value.folder) {
      action = await loadFolder(value.folder, main)
    } else if (typeof value.code === 'string' && value.code.trim()) {
      action = await loadText(value.code, main)
    } else {
      fail('Missing main/no code to execute.')
      return
    }
    if (typeof action !== 'function') throw `Action entrypoint '${main}' is not a function.` // eslint-disable-line no-throw-literal
    write(several !== null ? '{"ok":true,"concurrent":true,"stream":true}' : '{"ok":true,"stream":true}')
  } catch (error) {
    fail(`Initialization has failed due to: ${(error && error.stack) || error}`)
  }
}

async function loadText (code, main) {
  if (!IDENTIFIERS.test(main)) return undefined
  if (IS_BUN) code = new Bun.Transpiler({ loader: 'ts' }).transformSync(code) // eslint-disable-line no-undef
  const filename = '/action/index.js'
  const module = { exports: {} }
  const root = main.split('.')[0]
  const body = `${code}\n;return typeof ${root} !== 'undefined' ? ${main} : undefined;`
  const names = ['exports', 'require', 'module', '__filename', '__dirname']
  let compiled
  try {
    compiled = vm.compileFunction(body, names, { filename })
  } catch (error) {
    if ((IS_BUN || error instanceof SyntaxError) && /^\s*(import|export)\b/m.test(code)) return loadModuleText(code, main)
    throw error
  }
  const found = compiled.call(module.exports, module.exports, createRequire(filename), module, filename, '/action')
  return typeof found === 'function' ? found : member(module.exports, main)
}

async function loadModuleText (code, main) {
  leadAll()
  const file = path.join(fs.mkdtempSync('/tmp/action-'), 'index.mjs')
  fs.writeFileSync(file, code)
  const module = await import(pathToFileURL(file))
  return member(module, main) || module.default
}

async function loadFolder (folder, main) {
  const hasManifest = fs.existsSync(path.join(folder, 'package.json'))
  const entries = IS_BUN ? ['index.js', 'index.ts'] : ['index.js']
  if (!hasManifest && !entries.some((name) => fs.existsSync(path.join(folder, name)))) {
    throw 'Zipped actions must contain either package.json or index.js at the root.' // eslint-disable-line no-throw-literal
  }
  keepCompiled(folder)
  process.chdir(folder)
  const require = createRequire(path.join(folder, 'index.js'))
  let module
  try {
    module = require(folder)
  } catch (error) {
    if (error.code !== 'ERR_REQUIRE_ESM' && error.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw error
    leadAll()
    module = await import(pathToFileURL(require.resolve(folder)))
  }
  const found = member(module, main) || (module.default && member(module.default, main))
  return found || (main === 'main' ? module.default : undefined)
}

// Where Node can, what it compiles is kept: what an earlier container of the same action did is there already, or is given away.
let compiled = null // the folder that is being filled

function keepCompiled (folder) {
  const { enableCompileCache, flushCompileCache } = require('node:module')
  if (IS_BUN || flushCompileCache === undefined) return
  const kept = path.join(folder, '.visp-compiled')
  if (!fs.existsSync(kept)) compiled = '/tmp/.visp-compiled'
  enableCompileCache(compiled || kept)
}

function member (object, names) {
  return names.split('.').reduce((found, name) => (found === undefined || found === null ? undefined : found[name]), object)
}

// ── the way out ─────────────────────────────────────────────────────────────────────────────────────────────────────

// Where a proxy leads out, `http`, `https` and `fetch` are led through it, as newer Nodes do by themselves if they are asked
// to at their start. Nothing is loaded for that before the action does: what a module is loaded for may never be used.
const knowsProxies = IS_BUN || process.env.NODE_USE_ENV_PROXY === '1' && Number(process.versions.node.split('.')[0]) >= 24
const { Module } = module.constructor
let leadAll = () => {}

function lead () {
  const load = Module._load
  leadAll = () => {
    Module._load = load
    leadAll = () => {}
    for (const name of ['http', 'https']) leadAgents(require(name), name)
  }
  Module._load = function (request, ...rest) {
    if (/^(node:)?https?$/.test(request)) leadAll()
    return load.call(this, request, ...rest)
  }
  const fetch = globalThis.fetch
  if (fetch === undefined) return
  let isLed = false
  globalThis.fetch = function (...args) {
    if (!isLed) {
      isLed = true
      leadFetch()
    }
    return fetch.apply(this, args)
  }
}

const isNear = (host) => (process.env.NO_PROXY || '').split(',').includes(host)

function leadAgents (module, name) {
  const connect = module.Agent.prototype.createConnection
  module.Agent.prototype.createConnection = function (options, callback) {
    if (options.socketPath || options.socket || isNear(options.host)) return connect.call(this, options, callback)
    tunnel(options.host, options.port, (error, socket) => {
      if (error !== null) return callback(error)
      callback(null, name === 'http' ? socket : connect.call(this, { ...options, socket }))
    })
  }
}

function leadFetch () {
  const key = Symbol.for('undici.globalDispatcher.1')
  new Headers() // eslint-disable-line no-new -- loads what makes the dispatcher
  const direct = globalThis[key]
  if (direct === undefined || direct.constructor === Object) return
  const connect = (options, callback) => {
    const host = options.hostname.replace(/^\[|\]$/g, '')
    const isSecure = options.protocol === 'https:'
    const port = Number(options.port) || (isSecure ? 443 : 80)
    const done = (error, socket) => {
      if (error !== null || !isSecure) return callback(error, socket)
      const servername = options.servername || (require('node:net').isIP(host) ? undefined : host)
      const secure = require('node:tls').connect({ socket, servername, ALPNProtocols: ['http/1.1'] })
      secure.once('error', callback)
      secure.once('secureConnect', () => {
        secure.removeListener('error', callback)
        callback(null, secure)
      })
    }
    if (!isNear(host)) return tunnel(host, port, done)
    const socket = require('node:net').connect({ host, port })
    socket.once('error', callback)
    socket.once('connect', () => {
      socket.removeListener('error', callback)
      done(null, socket)
    })
  }
  globalThis[key] = new direct.constructor({ connect })
}

// A connection through the proxy; `callback(error, socket)`.
function tunnel (host, port, callback) {
  const proxy = new URL(process.env.HTTPS_PROXY)
  const socket = require('node:net').connect({ host: proxy.hostname, port: Number(proxy.port) })
  const target = `${host.includes(':') ? `[${host}]` : host}:${port}`
  let said = Buffer.alloc(0)
  const give = (error) => {
    for (const [event, listener] of Object.entries(listeners)) socket.removeListener(event, listener)
    if (error !== null) socket.destroy()
    callback(error, socket)
  }
  const listeners = {
    data (chunk) {
      said = Buffer.concat([said, chunk])
      const end = said.indexOf('\r\n\r\n')
      if (end < 0 || !/^HTTP\/1\.[01] 200 /.test(said)) return
      socket.pause()
      if (said.length > end + 4) socket.unshift(said.subarray(end + 4))
      give(null)
      setImmediate(() => socket.resume()) // for whoever listens by now
    },
    end () {
      const [head, body] = said.toString().split('\r\n\r\n')
      let sentence = head.split('\r\n')[0]
      try { sentence = JSON.parse(body).error } catch {}
      give(Object.assign(new Error(sentence || 'the proxy has closed the connection'), { code: 'ECONNREFUSED' }))
    },
    error: (error) => give(error)
  }
  for (const [event, listener] of Object.entries(listeners)) socket.on(event, listener)
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`)
}

// ── run ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// The environment is the process's: where runs overlap it holds what the last one brought, as in the official image.
function run (message) {
  if (several === null) runOne(message, null)
  else several.begin(message.activation_id, (own) => runOne(message, own))
}

// `own` is the run where several are under way.
function runOne (message, own) {
  if (isStopped) {
    reply(failed('System not ready, status is stopped.'), own)
    return
  }
  for (const name in message) {
    if (name !== 'value') show(name, message[name])
  }
  let result
  try {
    result = action(message.value === undefined ? {} : message.value)
  } catch (error) {
    isStopped = own === null // runs that have come already are not to suffer; no others will
    console.error(error)
    reply(failed(`An error has occurred: ${error}`), own)
    return
  }
  if (result === null || typeof result !== 'object' || typeof result.then !== 'function') {
    settle(result, own)
  } else if (own === null) {
    result.then(settleAlone, rejectAlone)
  } else {
    // a promise of its own kind that settles twice would answer twice, and end the container with all its runs
    Promise.resolve(result).then((value) => settle(value, own), (reason) => reply(reject(reason), own))
  }
}

function reply (text, own) {
  if (own === null) {
    write(text)
  } else {
    several.end(own)
    write(own.tag + text)
  }
}

function settle (result, own) {
  if (isStream(result)) {
    passOn(result, own).then(() => reply('{}', own), (reason) => reply(reject(reason), own))
  } else {
    reply(answer(result), own)
  }
}

const settleAlone = (result) => settle(result, null)
const rejectAlone = (reason) => write(reject(reason))

const isStream = (result) => typeof result === 'object' && result !== null && !Array.isArray(result) &&
  (typeof result[Symbol.asyncIterator] === 'function' || (typeof result.next === 'function' && typeof result[Symbol.iterator] === 'function'))

async function passOn (result, own) {
  if (own !== null) return own.passOn(result)
  goOn = null
  listen() // lines of credit come before the reply
  streaming = new (extras().Run)('', writeReply)
  try {
    await streaming.passOn(result)
  } finally {
    streaming = null
  }
}

function answer (result) {
  if (result === undefined) return '{}'
  if (result !== null && typeof result !== 'object') return failed('The action did not return a dictionary.')
  let text
  try {
    text = JSON.stringify(result)
  } catch (error) {
    return failed(`An error has occurred: ${error}`)
  }
  return text === undefined ? failed('The action did not return a dictionary.') : text
}

function reject (reason) {
  try {
    return JSON.stringify({ error: serialise(reason === undefined ? {} : reason, new Set()) })
  } catch (error) {
    return JSON.stringify({ error: String(reason) })
  }
}

// An error as JSON: name, message, stack and code, its own properties, nested errors too; what leads back to itself is named so.
function serialise (value, above) {
  if (value === null || typeof value !== 'object') return typeof value === 'function' ? `[Function: ${value.name}]` : value
  if (above.has(value)) return '[Circular]'
  if (typeof value.toJSON === 'function') return value.toJSON()
  above.add(value)
  const out = Array.isArray(value) ? [] : {}
  for (const key of Object.keys(value)) out[key] = serialise(value[key], above)
  if (value instanceof Error) {
    for (const key of ['name', 'message', 'stack', 'code']) {
      if (typeof value[key] === 'string') out[key] = value[key]
    }
  }
  above.delete(value)
  return out
}

// ── lines ───────────────────────────────────────────────────────────────────────────────────────────────────────

let hasInit = false

// An init line that comes again: a run body says for which activation it is.
function isInit (message) {
  const value = message.value
  return message.activation_id === undefined && value?.name !== undefined && value.main !== undefined && value.env !== undefined
}

function take (line) {
  if (line[0] === '+' || line[0] === '@') {
    if (several !== null) several.grant(line)
    else if (streaming !== null) streaming.grant(Number(line.slice(1)))
    return
  }
  const message = JSON.parse(line)
  if (!hasInit) {
    hasInit = true
    if (isCopied) differ()
    init(message.value)
  } else if (message.collect !== undefined) {
    write(JSON.stringify({ compiled: compiled === null ? '' : extras().collect(compiled, message.collect) }))
  } else if (message.rest === true) {
    rest()
  } else if (isInit(message)) {
    console.error(TWICE)
    fail(TWICE)
  } else {
    run(message)
  }
}

// A copy has its own number, and its own numbers by chance: those that begin with the same seed are taken at another place.
function differ () {
  const chance = Buffer.alloc(8)
  const source = fs.openSync('/dev/urandom', 'r')
  fs.readSync(source, chance, 0, chance.length, null)
  fs.closeSync(source)
  const seed = chance.readUInt32LE(0) % LARGEST_SEED + 1
  if (IS_BUN) require('bun:jsc').setRandomSeed(seed)
  else require('node:v8').setFlagsFromString(`--random-seed=${seed}`)
  for (let left = chance.readUInt16LE(4) % 1024; left > 0; left--) Math.random()
  Object.defineProperty(process, 'pid', { value: Number(fs.readlinkSync('/proc/self')), configurable: true, enumerable: true })
}

// What the last runs left behind is given back before the container stands still.
function rest () {
  require('node:v8').setFlagsFromString('--expose-gc')
  vm.runInNewContext('gc')()
  readOn()
}

let parts = [] // chunks of a line whose end has not come

function feed (chunk) {
  let from = 0
  for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, from)) {
    const end = chunk.subarray(from, at)
    const line = parts.length === 0 ? end : Buffer.concat([...parts, end])
    parts = []
    from = at + 1
    take(line.toString())
  }
  if (from < chunk.length) parts.push(chunk.subarray(from))
}

const end = () => process.exit(EXIT_OF_TERMINATED)

function listen () {
  if (isListening) return
  isListening = true
  const net = require('node:net')
  const input = new net.Socket({ fd: 0, readable: true, writable: false })
  input.on('data', feed)
  input.on('close', end)
}

// The lines up to the second run are read without `net`, which is loaded once that run is answered: a cold start does not
// wait for it, and a container that serves once never pays for it. While users' code runs nothing is being read this way:
// a process does not exit before such a read is over.
function readFirst (then, buffer = Buffer.allocUnsafe(CHUNK_BYTES)) {
  fs.read(0, buffer, 0, CHUNK_BYTES, null, (error, count) => {
    if (error !== null && error.code === 'EAGAIN') return listen()
    if (error !== null || count === 0) return end()
    const chunk = Buffer.from(buffer.subarray(0, count)) // its own: one that comes in crumbs must not hold a buffer for each
    const isWhole = chunk.includes(NEWLINE)
    if (isWhole) goOn = then
    feed(chunk)
    if (!isWhole) readFirst(then, buffer)
  })
}

const readAll = () => readFirst(readAll) // Bun has no socket over a descriptor

readFirst(IS_BUN ? readAll : () => several !== null ? listen() : readFirst(() => readFirst(listen)))
// What waits for its code for longer than a start takes is a stem cell, and has the time.
setTimeout(() => {
  if (hasInit) return
  process.stdout && process.stderr // eslint-disable-line no-unused-expressions -- they are made
  if (isCopied) rehearse()
}, STEM_CELL_MS).unref()

// What every start does is compiled once, before copies are made; nothing of it is seen.
async function rehearse () {
  require(IS_BUN ? 'bun:jsc' : 'node:v8')
  const { writeSync } = fs
  fs.writeSync = (_, bytes, at) => bytes.length - at
  show('rehearsed', undefined)
  action = await loadText('function main (args) { return args }', 'main')
  runOne({ value: { rehearsed: true } }, null)
  action = null
  fs.writeSync = writeSync
}
