// npm `openwhisk-composer`: every combinator, compiled and deployed by the library itself, then invoked.
'use strict'

const assert = require('node:assert/strict')
const composer = require('openwhisk-composer')

// The code of every conductor is the same but for its composition, and takes the library half a second to compress.
const terser = require(require.resolve('terser', { paths: [require.resolve('openwhisk-composer')] }))
const { minify } = terser
const compressed = new Map()
terser.minify = (code, options) => {
  if (!compressed.has(code)) compressed.set(code, minify(code, options))
  return compressed.get(code)
}

const compositions = require('openwhisk-composer/client')
const { keys, refused, run, until } = require('./check')

const ow = compositions()

// What compositions are made of: `components` deploys these, and is run first.
const [PLUS, IS_SMALL, FAIL, ECHO] = ['co-plus', 'co-is-small', 'co-fail', 'co-echo']
const COMPONENTS = composer.seq(
  composer.action(PLUS, { action: ({ n }) => ({ n: n + 1 }) }),
  composer.action(IS_SMALL, { action: ({ n }) => ({ value: n < 3 }) }),
  composer.action(FAIL, { action: ({ text = 'it is broken' }) => ({ error: text }) }),
  composer.action(ECHO, { action: (args) => args })
)

const deploy = (name, composition) => ow.compositions.deploy({ name, ...composition.compile() }, true)
const names = new Map()

// Each composition is deployed once, under a name of its own.
async function outcome (composition, params = {}) {
  if (!names.has(composition)) {
    names.set(composition, `co-composed-${names.size}`)
    await deploy(names.get(composition), composition)
  }
  return ow.actions.invoke({ name: names.get(composition), params, blocking: true, result: true })
}

async function gives (composition, params, expected) {
  assert.deepEqual(await outcome(composition, params), expected)
}

run({
  async components_ () {
    await deploy('co-components', COMPONENTS)
  },

  // ── what runs one after the other ─────────────────────────────────────────────────────────────────────────────

  async sequence () {
    await gives(composer.sequence(PLUS, PLUS, composer.seq(PLUS, PLUS)), { n: 1 }, { n: 5 })
  },

  async empty () {
    await gives(composer.empty(), { a: { b: [null] } }, { a: { b: [null] } })
  },

  async literalsAndValues () {
    await gives(composer.literal({ a: 1 }), {}, { a: 1 })
    await gives(composer.seq(composer.literal('text'), composer.retain(composer.value(42))), {},
      { params: { value: 'text' }, result: { value: 42 } })
  },

  async functions () {
    await gives(composer.seq(({ n }) => n * 2, () => {}, ({ value }) => ({ value: value + 1 })), { n: 4 }, { value: 9 })
    await refused(outcome(composer.function(() => { throw new Error('no') })), 502,
      'Function combinator threw an exception at AST node root (see log for details)')
  },

  async actions () {
    const exec = { kind: 'python:3.11', code: 'def main(args):\n    return {"from": "python", **args}\n' }
    const python = composer.action('co-python', { action: exec, limits: { memory: 128 } })
    await gives(python, { a: 1 }, { from: 'python', a: 1 })
    assert.equal((await ow.actions.get('co-python')).limits.memory, 128)
    const native = composer.action('co-native', { sequence: ['co-plus', 'co-plus'] })
    await gives(composer.seq(native, 'co-plus', '/_/co-plus', '/guest/co-plus'), { n: 1 }, { n: 6 })
  },

  async packagedActions () {
    const parameters = [{ key: 'given', value: 'by the package' }]
    await ow.packages.update({ name: 'co-package', package: { parameters } })
    const inner = composer.action('co-package/inner', { action: (args) => args })
    await gives(composer.seq(inner, ({ given }) => ({ given })), {}, { given: 'by the package' })
  },

  async dynamic () {
    const dynamic = composer.dynamic()
    await gives(dynamic, { type: 'action', name: '/_/co-plus', params: { n: 1 } }, { n: 2 })
    await refused(outcome(dynamic, { type: 'none' }), 502,
      'Incorrect use of the dynamic combinator at AST node root')
  },

  // ── what chooses and repeats ──────────────────────────────────────────────────────────────────────────────────

  async conditions () {
    const branches = composer.if(IS_SMALL, PLUS, ({ n }) => ({ n: n - 1 }))
    await gives(branches, { n: 1 }, { n: 2 })
    await gives(branches, { n: 7 }, { n: 6 })
    await gives(composer.if(IS_SMALL, PLUS), { n: 7 }, { n: 7 })
    await gives(composer.if_nosave(IS_SMALL, () => ({ was: 'small' }), ECHO), { n: 7 }, { value: false })
  },

  async whileLoops () {
    const loop = composer.while(IS_SMALL, PLUS)
    await gives(loop, { n: 0 }, { n: 3 })
    await gives(loop, { n: 9 }, { n: 9 })
    const test = ({ n }) => ({ value: n < 2, n })
    await gives(composer.while_nosave(test, PLUS), { n: 0 }, { value: false, n: 2 })
  },

  async doWhileLoops () {
    const loop = composer.dowhile(PLUS, IS_SMALL)
    await gives(loop, { n: 0 }, { n: 3 })
    await gives(loop, { n: 9 }, { n: 10 })
    await gives(composer.dowhile_nosave(PLUS, ({ n }) => ({ value: n < 2, n })), { n: 0 }, { value: false, n: 2 })
  },

  async repetitions () {
    await gives(composer.seq(composer.repeat(0, PLUS), composer.repeat(3, PLUS)), { n: 1 }, { n: 4 })
  },

  async retries () {
    const attempt = () => (left-- > 0 ? { error: 'not yet' } : { left }) // eslint-disable-line no-undef
    await gives(composer.let({ left: 2 }, composer.retry(3, attempt)), {}, { left: -1 })
    await refused(outcome(composer.retry(1, FAIL), { text: 'never' }), 502, 'never')
  },

  // ── what keeps and hides ──────────────────────────────────────────────────────────────────────────────────────

  async variables () {
    const change = () => { a += 1; b.push(a) } // eslint-disable-line no-undef
    const tell = () => ({ a, b }) // eslint-disable-line no-undef
    await gives(composer.let({ a: 1, b: [2] }, ECHO, change, ECHO, tell), {}, { a: 2, b: [2, 2] })
  },

  async masks () {
    const seen = () => ({ x }) // eslint-disable-line no-undef
    const layers = composer.let({ x: 'outer' }, composer.let({ x: 'inner' }, composer.mask(ECHO, seen)))
    await gives(layers, {}, { x: 'outer' })
    await gives(composer.let({ x: 'outer' }, composer.let({ x: 'inner' }, seen)), {}, { x: 'inner' })
  },

  async retained () {
    await gives(composer.retain(PLUS), { n: 1, kept: true }, { params: { n: 1, kept: true }, result: { n: 2 } })
    await gives(composer.retain_catch(FAIL), { n: 1 }, { params: { n: 1 }, result: { error: 'it is broken' } })
    await refused(outcome(composer.retain(FAIL)), 502, 'it is broken')
  },

  async merged () {
    await gives(composer.merge(PLUS), { n: 1, kept: true }, { n: 2, kept: true })
  },

  // ── what goes wrong ───────────────────────────────────────────────────────────────────────────────────────────

  async errorsOfComponents () {
    const error = await refused(outcome(composer.seq(FAIL, PLUS), { n: 1 }), 502, 'it is broken')
    assert.equal(error.error.response.status, 'application error')
    assert.deepEqual(error.error.response.result, { error: 'it is broken' })
  },

  async handlers () {
    await gives(composer.try(FAIL, ({ error }) => ({ handled: error })), {}, { handled: 'it is broken' })
    const doubled = composer.finally(PLUS, ({ n }) => ({ n: n * 2 }))
    await gives(composer.try(doubled, () => ({ handled: true })), { n: 1 }, { n: 4 })
    await gives(composer.finally(FAIL, ({ error }) => ({ last: error })), {}, { last: 'it is broken' })
  },

  async componentsThatCrash () {
    const crash = composer.action('co-crash', { action: () => process.exit(1) })
    await gives(composer.try(crash, ({ error }) => ({ handled: error })), {},
      { handled: 'The action did not produce a valid response and exited unexpectedly.' })
  },

  async componentsThatAreNot () {
    const handled = (name) => composer.try(name, ({ error }) => ({ error: undefined, handled: error }))
    await gives(handled('co-none'), {},
      { handled: "Failed to resolve action with name 'guest/co-none' during composition." })
    await gives(handled('/co-foreign/none'), {},
      { handled: "Failed entitlement check for action with name 'co-foreign/none' during composition." })
  },

  // ── compositions among themselves, and their records ──────────────────────────────────────────────────────────

  async nestedCompositions () {
    await deploy('co-nested', composer.seq(PLUS, composer.if(IS_SMALL, PLUS)))
    await gives(composer.seq(PLUS, 'co-nested', 'co-nested', ECHO), { n: 0 }, { n: 4 })
    await deploy('co-nested-broken', composer.seq(PLUS, FAIL))
    const handled = composer.try('co-nested-broken', ({ error }) => ({ handled: error }))
    await gives(handled, { n: 0 }, { handled: 'it is broken' })
  },

  async deployedAnnotations () {
    const composition = composer.seq(composer.action('co-inner', { action: (args) => args }), PLUS)
    const actions = await deploy('co-annotated', composition)
    assert.deepEqual(actions.map(({ name }) => name), ['/_/co-inner', 'co-annotated'])
    const action = await ow.actions.get('co-annotated')
    const { conductor, composerVersion, conductorVersion, 'provide-api-key': key } = keys(action.annotations)
    assert.deepEqual(conductor, JSON.parse(JSON.stringify(composition.compile().ast)))
    const { version } = composer.util
    assert.deepEqual([composerVersion, conductorVersion, key], [version, version, true])
    assert.deepEqual(action.limits, { timeout: 60000, memory: 256, logs: 10, concurrency: 1 })
  },

  async records () {
    await deploy('co-recorded', composer.seq(PLUS, ECHO))
    const answer = await ow.actions.invoke({ name: 'co-recorded', params: { n: 1 }, blocking: true })
    const primary = await until(() => ow.activations.get(answer.activationId))
    assert.deepEqual(primary.response, { status: 'success', success: true, result: { n: 2 } })
    const notes = keys(primary.annotations)
    assert.deepEqual([notes.kind, notes.conductor, notes.topmost], ['sequence', true, true])
    const parts = await Promise.all(primary.logs.map((id) => until(() => ow.activations.get(id))))
    const order = ['co-recorded', 'co-plus', 'co-recorded', 'co-echo', 'co-recorded']
    assert.deepEqual(parts.map(({ name }) => name), order)
    for (const part of parts) {
      assert.deepEqual([part.cause, keys(part.annotations).causedBy], [primary.activationId, 'sequence'])
    }
    assert.equal(primary.duration, parts.reduce((sum, { duration }) => sum + duration, 0))
  },

  async accepted () {
    await deploy('co-accepted', composer.seq(PLUS, PLUS))
    const { activationId } = await ow.actions.invoke({ name: 'co-accepted', params: { n: 1 } })
    const { response } = await until(() => ow.activations.get(activationId))
    assert.deepEqual(response.result, { n: 3 })
  },

  async firedCompositions () {
    await deploy('co-fired', composer.seq(({ n }) => ({ n }), PLUS))
    await ow.triggers.update({ name: 'co-trigger' })
    await ow.rules.update({ name: 'co-rule', trigger: 'co-trigger', action: 'co-fired' })
    const { activationId } = await ow.triggers.invoke({ name: 'co-trigger', params: { n: 1 } })
    const { logs } = await until(() => ow.activations.get(activationId))
    const { response } = await until(() => ow.activations.get(JSON.parse(logs[0]).activationId))
    assert.deepEqual(response.result, { n: 2 })
  },

  // ── what forks ────────────────────────────────────────────────────────────────────────────────────────────────

  async forksWithoutRedis () {
    await gives(composer.map(PLUS), { value: [] }, { value: [] })
    await gives(composer.parallel(), {}, { value: [] })
    await refused(outcome(composer.par(PLUS, PLUS), { n: 1 }), 502,
      'Parallel combinator requires a properly configured redis instance')
  },

  // These three call the server from inside a container.

  async asynchronous_ () {
    const { method, activationId } = await outcome(composer.async(PLUS, PLUS), { n: 1 })
    assert.equal(method, 'async')
    const { response } = await until(() => ow.activations.get(activationId))
    assert.deepEqual(response.result, { n: 3 })
  },

  async parallel_ () {
    const params = { n: 1, $composer: { redis: { uri: process.env.REDIS } } }
    await gives(composer.parallel(PLUS, composer.seq(PLUS, PLUS)), params, { value: [{ n: 2 }, { n: 3 }] })
  },

  async map_ () {
    const params = { value: [{ n: 1 }, { n: 5 }], $composer: { redis: { uri: process.env.REDIS } } }
    await gives(composer.map(PLUS), params, { value: [{ n: 2 }, { n: 6 }] })
  }
})
