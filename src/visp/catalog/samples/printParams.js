/** Writes its parameters to the log, sorted by name. */
function main (params) {
  const sorted = {}
  for (const name of Object.keys(params).sort()) sorted[name] = params[name]
  console.log('params:', sorted)
  return { params: sorted }
}
