/** How many words `payload` has. */
function main (params) {
  const words = String(params.payload || '').split(/\s+/).filter(Boolean)
  console.log(`The message '${params.payload}' has ${words.length} words`)
  return { count: words.length }
}
