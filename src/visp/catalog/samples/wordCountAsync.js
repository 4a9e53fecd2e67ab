/** How many words `payload` has, after a moment. */
function main (params) {
  const count = String(params.payload || '').split(/\s+/).filter(Boolean).length
  return new Promise((resolve) => setTimeout(() => resolve({ count }), 100))
}
