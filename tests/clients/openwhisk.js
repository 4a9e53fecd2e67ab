// npm `openwhisk`: every method of every resource.
'use strict'

const assert = require('node:assert/strict')
const JSZip = require('jszip')
const openwhisk = require('openwhisk')
const { keys, refused, run, until } = require('./check')

const ow = openwhisk()
const ECHO = 'const main = (args) => args'
const SPEAK = 'const main = ({ name }) => { console.log(`hello ${name}`); console.error("done"); return { name } }'
const FAIL = 'const main = ({ error }) => ({ error })'
const ABSENT = 'The requested resource does not exist.'
const { __OW_API_HOST: HOST, __OW_API_KEY: KEY } = process.env
const NAMESPACE = `${HOST}/api/v1/namespaces/_`

const put = (name, action = ECHO) => ow.actions.update({ name, action })
const resultOf = (name, params = {}) => ow.actions.invoke({ name, params, blocking: true, result: true })
const names = (entries) => entries.map(({ name }) => name)

run({
  // ── actions ───────────────────────────────────────────────────────────────────────────────────────────────────

  async createsAnActionWithEveryOption () {
    const action = await ow.actions.create({
      name: 'js-created',
      kind: 'nodejs:20',
      action: ECHO,
      params: { text: 'x', list: [1, { two: null }], flag: false },
      annotations: { description: 'made by a client', final: true },
      limits: { memory: 128, timeout: 1500 },
      version: '1.2.3'
    })
    assert.equal(action.namespace, 'guest')
    assert.equal(action.name, 'js-created')
    assert.equal(action.version, '1.2.3')
    assert.equal(action.publish, false)
    assert.ok(Number.isInteger(action.updated))
    assert.deepEqual(action.exec, { kind: 'nodejs:20', code: ECHO, binary: false })
    assert.deepEqual(action.limits, { timeout: 1500, memory: 128, logs: 10, concurrency: 1 })
    assert.deepEqual(keys(action.parameters), { text: 'x', list: [1, { two: null }], flag: false })
    const own = { description: 'made by a client', final: true }
    assert.deepEqual(keys(action.annotations), { ...own, 'provide-api-key': false, exec: 'nodejs:20' })
    assert.deepEqual(await ow.actions.get('js-created'), action)
  },

  async createsOnlyOnce () {
    await put('js-once')
    const error = await refused(ow.actions.create({ name: 'js-once', action: ECHO }), 409, 'resource already exists')
    const request = `PUT ${NAMESPACE}/actions/js-once`
    assert.equal(error.message, `${request} Returned HTTP 409 (Conflict) --> "resource already exists"`)
    assert.deepEqual(Object.keys(error.error).sort(), ['code', 'error'])
    const again = await ow.actions.create({ name: 'js-once', action: ECHO, overwrite: true })
    assert.equal(again.version, '0.0.2')
  },

  async updatesWhatIsGivenAndKeepsTheRest () {
    await ow.actions.create({ name: 'js-kept', action: ECHO, params: { a: 1 }, annotations: { b: 2 } })
    const same = await ow.actions.update('js-kept')
    assert.equal(same.version, '0.0.2')
    assert.equal(same.exec.code, ECHO)
    const changes = { params: { c: 3 }, annotations: { d: 4 }, limits: { logs: 1 } }
    const next = await ow.actions.update({ name: 'js-kept', ...changes })
    assert.equal(next.version, '0.0.3')
    assert.equal(next.exec.code, ECHO)
    assert.deepEqual(keys(next.parameters), { c: 3 })
    assert.deepEqual(keys(next.annotations), { b: 2, d: 4, exec: next.exec.kind, 'provide-api-key': false })
    assert.deepEqual(next.limits, { timeout: 60000, memory: 256, logs: 1, concurrency: 1 })
  },

  async resolvesTheDefaultKind () {
    const { exec } = await put('js-default')
    assert.match(exec.kind, /^nodejs:\d+$/)
    assert.equal(keys((await ow.actions.get('js-default')).annotations).exec, exec.kind)
  },

  async takesAWholeBodyAndAnOwnExec () {
    const whole = { exec: { kind: 'nodejs:20', code: ECHO }, annotations: [{ key: 'whole', value: true }] }
    assert.equal(keys((await ow.actions.create({ name: 'js-whole', action: whole })).annotations).whole, true)
    const code = 'exports.other = () => ({ was: "other" })'
    await ow.actions.create({ name: 'js-exec', action: code, exec: { kind: 'nodejs:20', main: 'other' } })
    assert.deepEqual(await resultOf('js-exec'), { was: 'other' })
  },

  async takesAnArchive () {
    const archive = new JSZip()
    archive.file('package.json', '{"main": "lib/start.js"}')
    archive.file('lib/start.js', 'exports.main = () => ({ text: require("./text") })')
    archive.file('lib/text.js', 'module.exports = "from a module"')
    const action = await archive.generateAsync({ type: 'nodebuffer' })
    const created = await ow.actions.create({ name: 'js-zip', kind: 'nodejs:20', action })
    assert.deepEqual(created.exec, { kind: 'nodejs:20', code: action.toString('base64'), binary: true })
    assert.deepEqual(await resultOf('js-zip'), { text: 'from a module' })
  },

  async getsWithAndWithoutCode () {
    const action = await put('js-code')
    for (const options of [{ name: 'js-code' }, { actionName: 'js-code', code: true }]) {
      assert.deepEqual(await ow.actions.get(options), action)
    }
    const { exec, ...rest } = await ow.actions.get({ name: 'js-code', code: false })
    assert.deepEqual(exec, { kind: action.exec.kind, binary: false })
    assert.deepEqual({ ...rest, exec: action.exec }, action)
  },

  async listsPagesAndCounts () {
    for (const name of ['js-list-1', 'js-list-2', 'js-list-3']) await put(name)
    const newest = await ow.actions.list({ limit: 2 })
    assert.deepEqual(names(newest), ['js-list-3', 'js-list-2'])
    assert.deepEqual(names(await ow.actions.list({ limit: 1, skip: 2 })), ['js-list-1'])
    assert.deepEqual(newest[0].exec, { binary: false })
    assert.equal(typeof keys(newest[0].annotations).exec, 'string')
    const { actions } = await ow.actions.list({ count: true })
    assert.equal(actions, (await ow.actions.list({ limit: 200 })).length)
    await refused(
      ow.actions.list({ limit: 201 }), 400,
      "The query parameter 'limit' was malformed:\nThe value '201' is not in the range of 0 to 200 for actions."
    )
  },

  async invokesInEveryWay () {
    await put('js-invoked')
    const params = { text: 'grüße', list: [1, 2.5], object: { none: null } }
    const accepted = await ow.actions.invoke({ name: 'js-invoked', params })
    assert.deepEqual(Object.keys(accepted), ['activationId'])
    assert.match(accepted.activationId, /^[0-9a-f]{32}$/)
    const record = await ow.actions.invoke({ name: 'js-invoked', params, blocking: true })
    assert.deepEqual(record.response, { status: 'success', success: true, result: params, size: record.response.size })
    assert.deepEqual(await resultOf('js-invoked', params), params)
    assert.deepEqual(await ow.actions.invoke({ name: 'js-invoked', blocking: true, result: true }), {})
  },

  async knowsEveryFormOfAName () {
    await ow.packages.create({ name: 'js-forms' })
    await put('js-form')
    await put('js-forms/form')
    const asked = ['js-form', '/guest/js-form', 'js-forms/form', '/guest/js-forms/form', 'guest/js-forms/form']
    for (const name of asked) assert.ok((await ow.actions.get(name)).name.endsWith('form'), name)
    assert.equal((await ow.actions.get('js-forms/form')).namespace, 'guest/js-forms')
    assert.equal((await ow.actions.get({ name: 'js-form', namespace: 'guest' })).namespace, 'guest')
    const spaced = await put('js-forms/with space@&.x')
    assert.equal(spaced.name, 'with space@&.x')
    assert.equal((await ow.actions.delete('js-forms/with space@&.x')).name, 'with space@&.x')
  },

  async takesArraysOfNames () {
    await Promise.all(['js-array-1', 'js-array-2'].map((name) => put(name)))
    assert.deepEqual(names(await ow.actions.get(['js-array-1', { name: 'js-array-2' }])), ['js-array-1', 'js-array-2'])
    const answers = await ow.actions.invoke(['js-array-1', 'js-array-2'])
    assert.equal(new Set(answers.map(({ activationId }) => activationId)).size, 2)
    assert.deepEqual(names(await ow.actions.delete(['js-array-1', 'js-array-2'])), ['js-array-1', 'js-array-2'])
    await refused(ow.actions.get(['js-array-1', 'js-array-2']), 404, ABSENT)
  },

  async makesAndRunsSequences () {
    await put('js-plus', 'const main = ({ n }) => ({ n: n + 1 })')
    const components = ['/_/js-plus', '/guest/js-plus', '/_/js-plus']
    const sequence = await ow.actions.create({ name: 'js-three', sequence: components })
    assert.deepEqual(sequence.exec, { kind: 'sequence', components: Array(3).fill('/guest/js-plus') })
    const record = await ow.actions.invoke({ name: 'js-three', params: { n: 1 }, blocking: true })
    assert.deepEqual(record.response.result, { n: 4 })
    assert.equal(record.logs.length, 3)
    for (const id of record.logs) {
      assert.equal((await until(() => ow.activations.get(id))).cause, record.activationId)
    }
    assert.throws(() => ow.actions.create({ name: 'js-none', sequence: [] }), /must not be empty/)
    await refused(
      ow.actions.create({ name: 'js-none', sequence: ['/_/js-no-such'] }), 400, 'Sequence component does not exist.'
    )
  },

  async tellsHowAnActionFailed () {
    await put('js-fails', FAIL)
    const plain = await refused(resultOf('js-fails', { error: 'it is broken' }), 502, 'it is broken')
    assert.match(plain.message, /Returned HTTP 502 \(Bad Gateway\)/)
    assert.deepEqual(plain.error.response.result, { error: 'it is broken' })
    assert.equal(plain.error.response.status, 'application error')
    await refused(resultOf('js-fails', { error: { error: 'deeper' } }), 502, 'deeper')
    await refused(resultOf('js-fails', { error: { statusCode: 404 } }), 502, 'application error, status code: 404')
    await put('js-throws', 'const main = () => { process.exit(1) }')
    const died = await refused(
      ow.actions.invoke({ name: 'js-throws', blocking: true }), 502,
      'The action did not produce a valid response and exited unexpectedly.'
    )
    assert.equal(died.error.response.status, 'action developer error')
  },

  async deletesActions () {
    const action = await put('js-gone')
    assert.deepEqual(await ow.actions.delete({ name: 'js-gone' }), action)
    const gone = await refused(ow.actions.delete('js-gone'), 404, ABSENT)
    const request = `DELETE ${NAMESPACE}/actions/js-gone`
    assert.equal(gone.message, `${request} Returned HTTP 404 (Not Found) --> "${ABSENT}"`)
  },

  async isRefusedAsTheRulesSay () {
    await refused(
      openwhisk({ api_key: KEY.replace('123z', '124z') }).actions.list(), 401, 'The supplied authentication is invalid'
    )
    await refused(
      ow.actions.get('/js-foreign/x'), 403,
      "The supplied authentication is not authorized to access 'js-foreign/x'."
    )
    await refused(put('js-$'), 400, 'The name of the entity contains illegal characters.')
    await ow.triggers.update('js-other-type')
    await refused(ow.actions.get('js-other-type'), 409, 'Resource by this name exists but is not in this collection.')
    const kind = await ow.actions.create({ name: 'js-kind', action: ECHO, kind: 'cobol:60' }).catch((error) => error)
    assert.equal(kind.statusCode, 400)
    assert.match(kind.error.error, /The specified runtime 'cobol:60' is not supported by this platform\. Valid values/)
  },

  // ── activations ───────────────────────────────────────────────────────────────────────────────────────────────

  async readsActivations () {
    await put('js-spoken', SPEAK)
    const { activationId: id } = await ow.actions.invoke({ name: 'js-spoken', params: { name: 'you' }, blocking: true })
    const record = await until(() => ow.activations.get(id))
    assert.deepEqual(record.response.result, { name: 'you' })
    assert.equal(keys(record.annotations).path, 'guest/js-spoken')
    for (const options of [{ name: id }, { activation: id }, { activationId: id }]) {
      assert.deepEqual(await ow.activations.get(options), record)
    }
    const { logs } = await ow.activations.logs(id)
    assert.deepEqual(logs, record.logs)
    assert.deepEqual(logs.map((line) => line.replace(/^\S+Z\s+/, '')).sort(), ['stderr: done', 'stdout: hello you'])
    assert.deepEqual(await ow.activations.result({ name: id }), record.response)
    await refused(ow.activations.get('0'.repeat(32)), 404, ABSENT)
    await refused(ow.activations.get('abc'), 400, 'Activation id length is 3 but must be 32.')
  },

  async listsActivations () {
    await put('js-run')
    const ids = []
    for (let n = 0; n < 3; n++) {
      const { activationId } = await ow.actions.invoke({ name: 'js-run', params: { n }, blocking: true })
      ids.unshift(activationId)
    }
    const list = (options) => ow.activations.list({ name: 'js-run', ...options })
    await until(async () => (await list()).length === 3)
    const all = await list()
    assert.deepEqual(all.map(({ activationId }) => activationId), ids)
    assert.deepEqual(Object.keys(all[0]).filter((key) => ['response', 'logs'].includes(key)), [])
    assert.equal(all[0].statusCode, 0)
    assert.deepEqual((await list({ limit: 1, skip: 1 })).map(({ activationId }) => activationId), [ids[1]])
    assert.deepEqual((await list({ docs: true })).map(({ response }) => response.result.n), [2, 1, 0])
    assert.deepEqual(await list({ count: true }), { activations: 3 })
    assert.equal((await list({ since: all[0].start }))[0].activationId, ids[0])
    assert.equal((await list({ since: all[0].start + 1 })).length, 0)
    assert.equal((await list({ upto: all[2].start })).at(-1).activationId, ids[2])
    assert.equal((await list({ upto: all[2].start - 1 })).length, 0)
  },

  // ── triggers and rules ────────────────────────────────────────────────────────────────────────────────────────

  async managesTriggers () {
    const trigger = { parameters: [{ key: 'a', value: 1 }], annotations: [{ key: 'b', value: [2] }] }
    const created = await ow.triggers.create({ name: 'js-trigger', trigger })
    assert.deepEqual(keys(created.parameters), { a: 1 })
    assert.deepEqual(keys(created.annotations), { b: [2] })
    assert.equal(created.version, '0.0.1')
    await refused(ow.triggers.create({ name: 'js-trigger' }), 409, 'resource already exists')
    const updated = await ow.triggers.update({ name: 'js-trigger', trigger: { parameters: [{ key: 'c', value: 3 }] } })
    assert.deepEqual([updated.version, keys(updated.parameters)], ['0.0.2', { c: 3 }])
    assert.deepEqual(await ow.triggers.get({ triggerName: 'js-trigger' }), updated)
    assert.equal((await ow.triggers.list({ limit: 1 }))[0].name, 'js-trigger')
    assert.equal((await ow.triggers.list({ count: true })).triggers, (await ow.triggers.list({ limit: 200 })).length)
    assert.equal((await ow.triggers.delete('js-trigger')).name, 'js-trigger')
    await refused(ow.triggers.get('js-trigger'), 404, ABSENT)
  },

  async firesTriggersThroughRules () {
    await put('js-heard')
    await ow.triggers.create({ name: 'js-fired', trigger: { parameters: [{ key: 'own', value: 1 }] } })
    const unheard = await ow.triggers.invoke('js-fired')
    assert.equal(unheard.activationId, undefined)
    const rule = await ow.rules.create({ name: 'js-rule', action: 'js-heard', trigger: 'js-fired' })
    assert.deepEqual(rule.action, { path: 'guest', name: 'js-heard' })
    assert.deepEqual(rule.trigger, { path: 'guest', name: 'js-fired' })
    assert.equal(rule.status, 'active')
    const { activationId } = await ow.triggers.invoke({ name: 'js-fired', params: { given: 2 } })
    const fired = await until(() => ow.activations.get(activationId))
    assert.deepEqual(fired.response.result, { given: 2 })
    const [log] = fired.logs.map(JSON.parse)
    assert.deepEqual([log.rule, log.action, log.success], ['guest/js-rule', 'guest/js-heard', true])
    const heard = await until(() => ow.activations.get(log.activationId))
    const { __ow_headers: headers, ...rest } = heard.response.result
    assert.deepEqual(rest, { own: 1, given: 2 })
    assert.equal(headers['user-agent'], 'openwhisk-client-js')
  },

  async switchesAndChangesRules () {
    for (const name of ['js-first', 'js-second']) await put(name)
    await ow.triggers.create({ name: 'js-switched' })
    await ow.rules.create({ name: 'js-switch', action: '/_/js-first', trigger: '/guest/js-switched' })
    const status = async () => (await ow.rules.get('js-switch')).status
    await ow.rules.disable({ name: 'js-switch' })
    assert.equal(await status(), 'inactive')
    await ow.rules.disable({ ruleName: 'js-switch' })
    assert.equal((await ow.triggers.invoke('js-switched')).activationId, undefined)
    await ow.rules.enable({ name: 'js-switch' })
    assert.equal(await status(), 'active')
    const updated = await ow.rules.update({ name: 'js-switch', action: 'js-second', trigger: 'js-switched' })
    assert.deepEqual([updated.version, updated.action.name, updated.status], ['0.0.2', 'js-second', 'active'])
    const [listed] = await ow.rules.list({ limit: 1 })
    assert.deepEqual([listed.name, listed.status], ['js-switch', undefined])
    assert.equal((await ow.rules.list({ count: true })).rules, (await ow.rules.list({ limit: 200 })).length)
    const { rules } = await ow.triggers.get('js-switched')
    assert.deepEqual(rules, { 'guest/js-switch': { action: { path: 'guest', name: 'js-second' }, status: 'active' } })
    assert.equal((await ow.rules.delete('js-switch')).status, 'inactive')
    await refused(ow.rules.get('js-switch'), 404, ABSENT)
    await refused(
      ow.rules.create({ name: 'js-lost', action: 'js-first', trigger: 'js-no-trigger' }), 400,
      'trigger /guest/js-no-trigger does not exist'
    )
  },

  // ── packages, namespaces, feeds ───────────────────────────────────────────────────────────────────────────────

  async managesPackages () {
    const created = await ow.packages.create({
      name: 'js-package',
      package: { publish: true, parameters: [{ key: 'a', value: 1 }], annotations: [{ key: 'b', value: 2 }] }
    })
    assert.deepEqual([created.publish, created.version, keys(created.parameters)], [true, '0.0.1', { a: 1 }])
    await put('js-package/inner')
    await ow.actions.update({ name: 'js-package/fed', action: ECHO, annotations: { feed: true } })
    const shown = await ow.packages.get({ packageName: 'js-package' })
    assert.deepEqual(shown.binding, {})
    assert.deepEqual([names(shown.actions), names(shown.feeds)], [['inner'], ['fed']])
    const bound = await ow.packages.create({
      name: 'js-bound',
      package: { binding: { namespace: '_', name: 'js-package' }, parameters: [{ key: 'c', value: 3 }] }
    })
    assert.deepEqual(bound.binding, { namespace: 'guest', name: 'js-package' })
    assert.deepEqual(await resultOf('js-bound/inner', { d: 4 }), { a: 1, c: 3, d: 4 })
    const updated = await ow.packages.update({ name: 'js-package', package: { publish: false } })
    assert.deepEqual([updated.publish, updated.version, keys(updated.parameters)], [false, '0.0.2', { a: 1 }])
    const listed = await ow.packages.list({ limit: 2, skip: 0, public: true })
    assert.deepEqual(names(listed), ['js-package', 'js-bound'])
    assert.equal((await ow.packages.list({ count: true })).packages, (await ow.packages.list({ limit: 200 })).length)
    const full = 'Package not empty (contains 2 entities). Set force param or delete package contents.'
    await refused(ow.packages.delete('js-package'), 409, full)
    await ow.packages.delete('js-bound')
    await ow.actions.delete(['js-package/inner', 'js-package/fed'])
    assert.equal((await ow.packages.delete('js-package')).name, 'js-package')
    await refused(ow.packages.get('js-package'), 404, "The requested resource 'guest/js-package' does not exist.")
  },

  async showsTheNamespace () {
    assert.deepEqual(await ow.namespaces.list(), ['guest'])
    await put('js-mine')
    const mine = await ow.namespaces.get()
    assert.deepEqual(Object.keys(mine), ['actions', 'packages', 'triggers', 'rules'])
    assert.ok(names(mine.actions).includes('js-mine'))
  },

  async speaksToFeeds () {
    await ow.packages.create({ name: 'js-source' })
    const feed = { name: 'js-source/feed', action: ECHO, annotations: { feed: true } }
    await ow.actions.create(feed)
    const annotations = [{ key: 'feed', value: '/_/js-source/feed' }]
    await ow.triggers.create({ name: 'js-event', trigger: { annotations } })
    const events = { create: 'CREATE', get: 'READ', update: 'UPDATE', delete: 'DELETE' }
    for (const [method, lifecycleEvent] of Object.entries(events)) {
      const params = { every: '1 m' }
      const { response } = await ow.feeds[method]({ name: 'js-source/feed', trigger: 'js-event', params })
      assert.deepEqual(response.result, { lifecycleEvent, triggerName: '/_/js-event', authKey: KEY, ...params })
    }
    const named = { feedName: 'js-source/feed', namespace: 'guest', trigger: '/guest/js-event' }
    const { response } = await ow.feeds.create(named)
    assert.equal(response.result.triggerName, '/guest/js-event')
    await ow.actions.update({ ...feed, action: 'const main = () => ({ error: "no such schedule" })' })
    await refused(ow.feeds.create({ name: 'js-source/feed', trigger: 'js-event' }), 502, 'no such schedule')
    await refused(ow.feeds.create({ name: 'js-source/none', trigger: 'js-event' }), 404, ABSENT)
  },

  // ── routes ────────────────────────────────────────────────────────────────────────────────────────────────────

  async createsAndListsRoutes () {
    await put('js-route')
    const one = { basepath: '/js-api', relpath: '/one', operation: 'GET', action: 'js-route', name: 'JS API' }
    const made = await ow.routes.create(one)
    assert.equal(made.gwApiUrl, `${HOST}/gw/guest/js-api`)
    assert.equal(made.apidoc.info.title, 'JS API')
    const { get } = made.apidoc.paths['/one']
    assert.equal(get.operationId, 'getOne')
    assert.equal(get['x-openwhisk'].url, `${HOST}/api/v1/web/guest/default/js-route.json`)
    const parameters = await ow.routes.create({
      ...one, relpath: '/books/{isbn}', operation: 'put', responsetype: 'http'
    })
    assert.equal(parameters.apidoc.paths['/books/{isbn}'].put.parameters[0].name, 'isbn')
    const secured = await ow.routes.create({ ...one, relpath: '/two', operation: 'POST', secure_key: 'opens' })
    assert.ok(JSON.stringify(secured.apidoc).includes('X-Require-Whisk-Auth'))
    const { apis } = await ow.routes.list()
    const [entry] = apis.filter(({ value }) => value.apidoc.basePath === '/js-api')
    assert.deepEqual(Object.keys(entry.value.apidoc.paths), ['/one', '/books/{isbn}', '/two'])
    for (const basepath of ['/js-api', 'JS API']) {
      assert.deepEqual(await ow.routes.get({ basepath }), { apis: [entry] })
    }
    assert.deepEqual(await ow.routes.list({ basepath: '/js-none' }), { apis: [] })
    assert.equal((await ow.routes.list({ limit: 1, skip: 0 })).apis.length, 1)
  },

  async deletesRoutes () {
    const of = (relpath, operation) => ({ basepath: '/js-gone', relpath, ...(operation && { operation }) })
    for (const operation of ['GET', 'POST']) await ow.routes.create({ ...of('/a', operation), action: 'js-route' })
    await ow.routes.create({ ...of('/b', 'GET'), action: 'js-route' })
    assert.deepEqual(await ow.routes.delete(of('/a', 'GET')), {})
    await refused(
      ow.routes.delete(of('/a', 'GET')), 502,
      "API deletion failure: path '/a' with operation 'get' does not exist in the API"
    )
    assert.deepEqual(await ow.routes.delete(of('/b')), {})
    assert.deepEqual(await ow.routes.delete({ basepath: '/js-gone' }), {})
    const gone = "API deletion failure: API '/js-gone' does not exist."
    await refused(ow.routes.delete({ basepath: '/js-gone' }), 502, gone)
  },

  async tellsWhyARouteCannotBe () {
    const wrong = { basepath: '/js-{x}', relpath: '/a', operation: 'GET', action: 'js-route' }
    await refused(
      ow.routes.create(wrong), 502,
      'API creation failure: The base path (/js-{x}) cannot have parameters. Only the relative path supports path ' +
        'parameters.'
    )
    const withToken = openwhisk({ apigw_token: 'any', apigw_space_guid: '00000000-0000-0000-0000-000000000000' })
    await ow.routes.create({ ...wrong, basepath: '/js-own' })
    const { apis } = await withToken.routes.get({ basepath: '/js-own' })
    assert.equal(apis.length, 1) // whatever tenant is named, the key decides
  },

  // ── options of the client ─────────────────────────────────────────────────────────────────────────────────────

  async takesItsOptions () {
    await put('js-options')
    const basic = `Basic ${Buffer.from(KEY).toString('base64')}`
    const clients = [
      openwhisk({ apihost: HOST, api_key: KEY, apiversion: 'v1', namespace: 'guest' }),
      openwhisk({ api: `${HOST}/api/v1`, api_key: KEY, namespace: '_' }),
      openwhisk({ auth_handler: { getAuthHeader: async () => basic }, retry: { retries: 1 } })
    ]
    for (const client of clients) assert.equal((await client.actions.get('js-options')).namespace, 'guest')
    const bearer = openwhisk({ auth_handler: { getAuthHeader: async () => 'Bearer x' } })
    const unknown = 'The resource requires authentication, which was not supplied with the request'
    await refused(bearer.actions.list(), 401, unknown)
    const named = openwhisk({ namespace: 'guest' })
    await named.triggers.create({ name: 'js-named' })
    const rule = await named.rules.create({ name: 'js-named-rule', action: 'js-options', trigger: 'js-named' })
    assert.deepEqual(rule.trigger, { path: 'guest', name: 'js-named' })
  },

  async handsItsTransactionOn () {
    process.env.__OW_TRANSACTION_ID = 'js-transaction'
    const { error } = await refused(ow.actions.get('js-absent'), 404, ABSENT)
    delete process.env.__OW_TRANSACTION_ID
    assert.equal(error.code, 'js-transaction')
  },

  async asksForMoreLogging () {
    await put('js-verbose')
    const headers = { 'X-OW-EXTRA-LOGGING': 'on' }
    const { response } = await ow.actions.invoke({ name: 'js-verbose', params: { a: 1 }, blocking: true, headers })
    assert.deepEqual(response.result, { a: 1 })
  }
})
