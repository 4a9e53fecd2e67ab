/** The first `num` of `lines`. */
function main (params) {
  const lines = params.lines || []
  const num = params.num || 1
  return { lines: lines.slice(0, num), num }
}
