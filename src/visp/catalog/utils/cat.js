/** Joins `lines` to one text, `payload`. */
function main (params) {
  const lines = params.lines || []
  return { lines, payload: lines.join('\n') }
}
