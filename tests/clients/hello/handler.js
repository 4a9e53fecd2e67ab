'use strict'

exports.greet = ({ greeting, name = 'stranger' }) => {
  console.log(`greeting ${name}`)
  return { message: `${greeting}, ${name}!` }
}

exports.shout = ({ message }) => ({ message: message.toUpperCase() })
