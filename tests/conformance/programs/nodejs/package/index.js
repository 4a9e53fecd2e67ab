const fs = require('fs')
const path = require('path')
const beside = require('./beside')

exports.main = () => ({
  beside: beside.word(),
  data: fs.readFileSync('data.txt', 'utf8'),
  is_here: fs.existsSync(path.join(process.cwd(), 'data.txt'))
})
