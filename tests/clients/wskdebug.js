// npm `@openwhisk/wskdebug`: its agents, with this script in place of the local container that it would debug in.
'use strict'

const assert = require('node:assert/strict')
const AgentManager = require('@openwhisk/wskdebug/src/agentmgr')
const Invoker = require('@openwhisk/wskdebug/src/invoker')
const log = require('@openwhisk/wskdebug/src/log')
const openwhisk = require('openwhisk')
const { keys, refused, run, until } = require('./check')

log.quiet(true)
const ow = openwhisk()
const CODE = 'const main = ({ text }) => ({ answer: `original ${text}` })'
const ACTION = {
  exec: { kind: 'nodejs:20', code: CODE, main: 'main' },
  annotations: [{ key: 'description', value: 'the original' }, { key: 'web-export', value: false }],
  parameters: [{ key: 'given', value: { deep: [1] } }],
  limits: { timeout: 2000, memory: 128, logs: 1 },
  version: '3.2.1'
}

async function prepare (name) {
  await ow.actions.update({ name, action: ACTION })
  return ow.actions.get(name)
}

async function debug (name, options = {}) {
  const manager = new AgentManager(options, ow, name)
  await manager.peekAction()
  await manager.readActionWithCode()
  await manager.installAgent(null, () => {})
  await manager.createBackup
  return manager
}

// All but when it was written; the version is the one that was saved. An annotation of the agent stays, since updates
// merge annotations: so it is with OpenWhisk.
function same (action, other, name = other.name) {
  const annotations = action.annotations.filter(({ key }) => key !== 'wskdebug')
  const plain = ({ annotations, ...rest }) => ({ ...rest, updated: 0, annotations: keys(annotations) })
  assert.deepEqual(plain({ ...action, annotations }), plain({ ...other, name }))
}

run({
  async theAgentStandsInForTheAction () {
    const before = await prepare('wd-agent')
    const manager = await debug('wd-agent', { cleanup: true })
    assert.equal(manager.concurrency, true)
    same(await ow.actions.get('wd-agent_wskdebug_original'), before, 'wd-agent_wskdebug_original')
    const agent = await ow.actions.get('wd-agent')
    assert.deepEqual(agent.limits, { ...before.limits, timeout: 300000, concurrency: 200 })
    const { description, wskdebug, exec, 'provide-api-key': key } = keys(agent.annotations)
    assert.match(description, /^wskdebug agent\./)
    assert.deepEqual([wskdebug, exec, key], [true, agent.exec.kind, true])

    await manager.completeActivation('none', {}, 0) // brings the container up in which the others meet
    const called = ow.actions.invoke({ name: 'wd-agent', params: { text: 'hi' }, blocking: true })
    const { $activationId: id, ...params } = await manager.waitForActivations()
    assert.deepEqual(params, { given: { deep: [1] }, text: 'hi' })
    await manager.completeActivation(id, { answer: 'from here' }, 1)
    const { activationId, response } = await called
    assert.deepEqual([activationId, response.result], [id, { answer: 'from here', given: { deep: [1] } }])

    await manager.shutdown()
    same(await ow.actions.get('wd-agent'), before)
    const put = await ow.actions.invoke({ name: 'wd-agent', params: { text: 'hi' }, blocking: true })
    assert.deepEqual(put.response.result, { answer: 'original hi' })
    await refused(ow.actions.get('wd-agent_wskdebug_original'), 404, 'The requested resource does not exist.')
  },

  async anAgentThatWasLeftBehindIsReplaced () {
    const before = await prepare('wd-left')
    await debug('wd-left')
    const next = new AgentManager({ cleanup: true }, ow, 'wd-left')
    assert.equal((await next.peekAction()).name, 'wd-left_wskdebug_original')
    await next.readActionWithCode()
    same(await ow.actions.get('wd-left'), before)
  },

  async itsImageIsFound () {
    const image = await Invoker.prototype.getImageForKind.call({ wsk: ow }, 'nodejs:20')
    assert.match(image, /^openwhisk\/action-nodejs-v20:\w+$/)
  },

  // For a server that lets no runs overlap. Its agent would call the server from inside a container; so does this
  // script in its place.
  async withoutOverlapTheRecordsAreAsked_ () {
    await ow.packages.update('wd-package')
    const name = 'wd-package/polled'
    const before = await prepare(name)
    await refused(
      ow.actions.update({ name, action: { limits: { concurrency: 200 } } }), 400,
      'requirement failed: concurrency 200 exceeds allowed threshold of 1'
    )
    const manager = await debug(name, { cleanup: true })
    assert.equal(manager.concurrency, false)
    assert.equal((await ow.actions.get(name)).limits.concurrency, 1)

    const waiting = manager.waitForActivations()
    const params = { text: 'hi', $activationId: '0'.repeat(32) }
    await ow.actions.invoke({ name: `${name}_wskdebug_invoked`, params })
    assert.deepEqual(await waiting, params)
    const since = Date.now()
    await manager.completeActivation(params.$activationId, { answer: 'from here' }, 1)
    const [{ response }] = await until(async () => {
      const found = await ow.activations.list({ name: `${name}_wskdebug_completed`, since, docs: true })
      return found.length && found
    })
    assert.deepEqual(response.result, { answer: 'from here', $activationId: params.$activationId })
    assert.equal((await ow.activations.list({ name: 'polled_wskdebug_completed' })).length, 0)

    await manager.shutdown()
    same(await ow.actions.get(name), before)
    await refused(ow.actions.get(`${name}_wskdebug_invoked`), 404, 'The requested resource does not exist.')
  }
})
