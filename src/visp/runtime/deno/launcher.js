// Runs a Deno action inside its container: JSON lines on standard input, replies as JSON lines on descriptor 3.
//
// The first line is init: {"value": {name, main, binary, code | folder, env}}. Every later line is a run body:
// {"value", "namespace", "action_name", "action_version", "activation_id", "transaction_id", "deadline", "api_key"?}.
// A reply is what the kind's official image answers: a plain line for 200, a line that begins with "!" for an error status.
// The action is what `main.ts` (or `main.js`, `main.mjs`) exports as default or by its name; text may also just define it.
// Standard output and error are the logs; Deno writes them at once. It knows no other descriptors, so the channels are the C
// library's; before user code is loaded both move to where no child inherits them.

const INPUT = 100
const REPLIES = 101
const CLOSE_ON_EXEC = 0o2000000
const NEWLINE = 10
const CHUNK_BYTES = 65536
const FILES = ['main.ts', 'main.js', 'main.mjs']
const EXPORTS = /(^|;)\s*export\b/m
const NAME = /^[A-Za-z_$][\w$]*$/
const NOT_FOUND = 'The action failed to generate or locate a binary. See logs for details.'
const TWICE = 'Cannot initialize the action more than once.'
const NOT_A_DICTIONARY = 'The action did not return a dictionary or array.'

let action = null // the user's function, once init has found it

const libc = Deno.dlopen('libc.so.6', {
  read: { parameters: ['i32', 'buffer', 'usize'], result: 'isize', nonblocking: true },
  write: { parameters: ['i32', 'buffer', 'usize'], result: 'isize' },
  open: { parameters: ['buffer', 'i32'], result: 'i32' },
  dup3: { parameters: ['i32', 'i32', 'i32'], result: 'i32' },
  close: { parameters: ['i32'], result: 'i32' }
}).symbols

const bytesOf = (text) => new TextEncoder().encode(text)

function openChannels () {
  libc.dup3(0, INPUT, CLOSE_ON_EXEC)
  libc.dup3(3, REPLIES, CLOSE_ON_EXEC)
  libc.close(3)
  const nothing = libc.open(bytesOf('/dev/null\0'), 0)
  libc.dup3(nothing, 0, 0)
  libc.close(nothing)
}

function write (text) {
  let left = bytesOf(text + '\n')
  while (left.length > 0) {
    const count = Number(libc.write(REPLIES, left, BigInt(left.length)))
    if (count < 0) Deno.exit(0) // nobody listens any more
    left = left.subarray(count)
  }
}

const fail = (sentence) => write('!' + JSON.stringify({ error: sentence }))

async function init (value) {
  for (const [name, text] of Object.entries(value.env || {})) Deno.env.set(name, text)
  const main = value.main || 'main'
  try {
    if (!value.folder && !(typeof value.code === 'string' && value.code.trim())) {
      return fail('Missing main/no code to execute.')
    }
    if (!NAME.test(main)) throw new Error(`'${main}' is no name of a function`)
    const file = value.folder ? findFile(value.folder) : writeFile(value.code, main)
    const module = await import(`file://${file}`)
    const found = module[main] ?? (main === 'main' ? module.default : undefined)
    if (typeof found !== 'function') throw new Error(`neither a function '${main}' is exported nor one as default`)
    action = found
  } catch (error) {
    console.error(error)
    return fail(NOT_FOUND)
  }
  write('{"ok":true}')
}

function findFile (folder) {
  Deno.chdir(folder)
  const names = [...Deno.readDirSync(folder)].map((entry) => entry.name)
  const name = FILES.find((name) => names.includes(name))
  if (name === undefined) throw new Error(`there is none of ${FILES.join(', ')} at the root`)
  return `${folder}/${name}`
}

function writeFile (code, main) {
  const file = `${Deno.makeTempDirSync({ prefix: 'action-' })}/main.ts`
  Deno.writeTextFileSync(file, EXPORTS.test(code) ? code : `${code}\nexport { ${main} }\n`)
  return file
}

// An init line that comes again: a run body says for which activation it is.
function isInit (message) {
  const value = message.value
  return message.activation_id === undefined && value?.name !== undefined && value.main !== undefined && value.env !== undefined
}

async function run (message) {
  for (const [name, text] of Object.entries(message)) {
    if (name !== 'value' && typeof text === 'string') Deno.env.set('__OW_' + name.toUpperCase(), text)
  }
  let result
  try {
    result = await action(message.value ?? {})
  } catch (error) {
    console.error(error)
    return write(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }))
  }
  let text
  try {
    text = result !== null && typeof result === 'object' ? JSON.stringify(result) : undefined
  } catch (error) {
    console.error(error)
    return fail(`The result is not JSON: ${error.message}`)
  }
  return text === undefined ? fail(NOT_A_DICTIONARY) : write(text)
}

async function * lines () {
  let parts = [] // chunks of a line whose end has not come
  const buffer = new Uint8Array(CHUNK_BYTES)
  const read = async () => Number(await libc.read(INPUT, buffer, BigInt(CHUNK_BYTES)))
  for (let count = await read(); count > 0; count = await read()) {
    let from = 0
    for (let at = buffer.indexOf(NEWLINE); at >= 0 && at < count; at = buffer.indexOf(NEWLINE, from)) {
      parts.push(buffer.slice(from, at))
      yield await new Blob(parts).text()
      parts = []
      from = at + 1
    }
    if (from < count) parts.push(buffer.slice(from, count))
  }
}

openChannels()
let hasInit = false
for await (const line of lines()) {
  const message = JSON.parse(line)
  if (!hasInit) {
    hasInit = true
    await init(message.value)
  } else if (isInit(message)) {
    console.error(TWICE)
    fail(TWICE)
  } else if (action === null) {
    fail('Cannot run: the action was not initialized.')
  } else {
    await run(message)
  }
}
Deno.exit(0)
