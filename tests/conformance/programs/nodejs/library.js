const openwhisk = require('openwhisk')

exports.main = ({ text }) => ({ made: typeof openwhisk({ apihost: text, api_key: 'a:b' }).actions.invoke })
