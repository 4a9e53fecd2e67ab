// What the launcher of Node.js kinds needs for some actions alone: results that come in parts, several runs at once.
//
// A part of a result is a line that begins with "+": JSON, or ":" and the base64 of bytes. As many bytes of parts are
// written as there is credit for, then a run waits for a line "+<bytes>" that gives more.
//
// With several runs at once every line on descriptor 3 begins with "@<activation_id> ", and so does each line of credit. What
// a run prints, in its own context, is a line with ">" (standard output) or "#" (standard error) before it; what is printed
// outside of any run, or by programs, goes where it always does.
'use strict'

const WINDOW_BYTES = 256 * 1024 // the credit that each run begins with
const TEXT_PIECE = 16 * 1024
const BYTES_PIECE = 48 * 1024
const VALUE_BYTES = 512 * 1024
const LINE_BYTES = 64 * 1024
const NEWLINE = 10

// One run: its name on the wire, its credit, and the beginnings of lines that it has printed.
class Run {
  constructor (tag, write) {
    this.tag = tag
    this.write = write
    this.credit = WINDOW_BYTES
    this.goOn = null
    this.rest = { '>': null, '#': null }
    this.isOver = false
  }

  grant (bytes) {
    this.credit += bytes
    if (this.credit > 0 && this.goOn !== null) {
      this.goOn()
      this.goOn = null
    }
  }

  async passOn (result) {
    for await (const chunk of result) {
      for (const part of partsOf(chunk)) {
        const line = Buffer.from(`${this.tag}+${part}\n`)
        this.write(line)
        this.credit -= line.length - this.tag.length - 1
        if (this.credit <= 0) await new Promise((resolve) => { this.goOn = resolve })
      }
    }
  }

  // False for a run that is over: what it left behind prints for nobody.
  print (mark, chunk) {
    if (this.isOver) return false
    const whole = this.rest[mark] === null ? chunk : Buffer.concat([this.rest[mark], chunk])
    const head = Buffer.from(this.tag + mark)
    const out = []
    let from = 0
    for (let at = whole.indexOf(NEWLINE); at >= 0; at = whole.indexOf(NEWLINE, from)) {
      out.push(head, whole.subarray(from, at + 1))
      from = at + 1
    }
    for (; whole.length - from > LINE_BYTES; from += LINE_BYTES) {
      out.push(head, whole.subarray(from, from + LINE_BYTES), Buffer.from([NEWLINE]))
    }
    this.rest[mark] = from < whole.length ? Buffer.from(whole.subarray(from)) : null
    if (out.length > 0) this.write(Buffer.concat(out))
    return true
  }

  // Comes before its reply.
  end () {
    for (const mark of ['>', '#']) {
      if (this.rest[mark] !== null) this.print(mark, Buffer.from([NEWLINE]))
    }
    this.isOver = true
  }
}

// The part lines of one chunk: text and bytes in pieces, any other value whole.
function * partsOf (chunk) {
  if (typeof chunk === 'string') {
    for (let at = 0; at < chunk.length;) {
      let end = Math.min(at + TEXT_PIECE, chunk.length)
      if (end < chunk.length && isFirstHalf(chunk.charCodeAt(end - 1))) end++
      yield JSON.stringify(chunk.slice(at, end))
      at = end
    }
  } else if (ArrayBuffer.isView(chunk) || chunk instanceof ArrayBuffer) {
    const bytes = ArrayBuffer.isView(chunk) ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength) : Buffer.from(chunk)
    for (let at = 0; at < bytes.length; at += BYTES_PIECE) {
      yield ':' + bytes.subarray(at, at + BYTES_PIECE).toString('base64')
    }
  } else {
    const text = JSON.stringify(chunk)
    if (text === undefined) throw new TypeError('A part of the result is no JSON.')
    if (Buffer.byteLength(text) > VALUE_BYTES) throw new RangeError(`A part of the result is larger than ${VALUE_BYTES} bytes.`)
    yield text
  }
}

const isFirstHalf = (code) => code >= 0xd800 && code <= 0xdbff

// Runs under way: what each prints is told apart by the context in which it is printed.
class Several {
  constructor (write) {
    const { AsyncLocalStorage } = require('node:async_hooks')
    this.write = write
    this.runs = new Map()
    const current = this.current = new AsyncLocalStorage()
    for (const [name, mark] of [['stdout', '>'], ['stderr', '#']]) {
      const stream = process[name]
      const plain = stream.write
      stream.write = function (chunk, encoding, then) {
        const run = current.getStore()
        if (run === undefined || run.isOver) return plain.apply(stream, arguments)
        if (typeof encoding === 'function') [encoding, then] = [undefined, encoding]
        if (typeof chunk !== 'string' && !(chunk instanceof Uint8Array)) return plain.apply(stream, arguments) // it throws
        run.print(mark, typeof chunk === 'string' ? Buffer.from(chunk, encoding) : Buffer.from(chunk))
        if (typeof then === 'function') process.nextTick(then)
        return true
      }
    }
  }

  // Calls `begin` in the context of a new run.
  begin (id, begin) {
    const run = new Run(`@${id} `, this.write)
    this.runs.set(id, run)
    this.current.run(run, begin, run)
  }

  end (run) {
    run.end()
    this.runs.delete(run.tag.slice(1, -1))
  }

  // A line of credit.
  grant (line) {
    const at = line.indexOf(' +')
    const run = this.runs.get(line.slice(1, at))
    if (run !== undefined) run.grant(Number(line.slice(at + 2)))
  }
}

// ── what was compiled ───────────────────────────────────────────────────────────────────────────────────────────

const COMPILED_BYTES = 16 * 1024 * 1024
const COMPILED_PIECE = 384 * 1024
const FRAME_BYTES = 64 * 1024
let packed = null

// A piece of the folder as the frames that the unpacker's are: a letter, a length, a payload.
function collect (folder, offset) {
  if (packed === null) packed = pack(folder)
  return packed.toString('base64', offset, offset + COMPILED_PIECE)
}

function pack (folder) {
  const fs = require('node:fs')
  const path = require('node:path')
  require('node:module').flushCompileCache()
  const frames = []
  let size = 0
  const add = (letter, payload) => {
    const head = Buffer.alloc(5, letter)
    head.writeUInt32BE(payload.length, 1)
    frames.push(head, payload)
    size += head.length + payload.length
  }
  const walk = (inside) => {
    for (const entry of fs.readdirSync(path.join(folder, inside), { withFileTypes: true })) {
      const name = path.join(inside, entry.name)
      if (entry.isDirectory()) {
        add('D', Buffer.from(name))
        walk(name)
      } else if (entry.isFile()) {
        const content = fs.readFileSync(path.join(folder, name))
        add('F', Buffer.from(name))
        for (let at = 0; at < content.length; at += FRAME_BYTES) add('B', content.subarray(at, at + FRAME_BYTES))
      }
    }
  }
  try {
    walk('')
  } catch (error) {
    if (error.code !== 'ENOENT') throw error
    return Buffer.alloc(0) // the action has removed it
  }
  add('E', Buffer.alloc(0))
  return size > COMPILED_BYTES ? Buffer.alloc(0) : Buffer.concat(frames)
}

module.exports = { collect, Run, Several }
