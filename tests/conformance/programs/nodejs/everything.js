// What every kind's program does, by the word `do`: `tests/conformance/kinds.py` lists it.
let count = 0

function main (args) {
  count++
  if (Array.isArray(args)) return args.reverse()
  const { do: what, text } = args
  switch (what) {
    case 'hello': return { greeting: `Hello, ${args.name}!` }
    case 'same': return { value: args.value }
    case 'unicode':
      console.log(text)
      return { winter: `${text} ☃ ${text}` }
    case 'env':
      return { env: Object.fromEntries(args.names.map((name) => [name, process.env[name] ?? null])), keys: Object.keys(args).sort() }
    case 'error': return { error: { code: 7 }, more: 1 }
    case 'throw': throw new Error('boom')
    case 'logs':
      for (const number of [1, 2]) {
        console.log('out', number)
        console.error('err', number)
      }
      return {}
    case 'long': return { text: 'x'.repeat(args.bytes) }
    case 'length': return { length: text.length }
    case 'count': return { count }
    case 'chance': return { chance: [String(Math.random()), require('crypto').randomUUID()] }
    case 'die': return process.kill(process.pid, 'SIGKILL')
    case 'sleep': return new Promise((resolve) => setTimeout(resolve, 60000))
    case 'eat': for (const eaten = []; ;) eaten.push(Buffer.alloc(8 << 20, 'x'))
    case 'number': return 5
    default: return null
  }
}

const other = () => ({ by: 'other' })
