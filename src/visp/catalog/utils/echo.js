/** Returns what it is given. */
function main (params) {
  console.log(params)
  return params
}
