/** Sorts `lines` as text. */
function main (params) {
  const lines = [...(params.lines || [])].sort()
  return { lines, length: lines.length }
}
