/** The namespace that this runs for. */
function main () {
  return { namespace: process.env.__OW_NAMESPACE }
}
