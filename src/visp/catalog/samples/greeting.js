/** Greets `name`, who is from `place`. */
function main (params) {
  const name = params.name || 'stranger'
  const place = params.place || 'somewhere'
  return { payload: `Hello, ${name} from ${place}!` }
}
