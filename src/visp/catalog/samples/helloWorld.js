/** Writes a greeting to the log. */
function main (params) {
  console.log(`hello ${params.payload}!`)
  return {}
}
