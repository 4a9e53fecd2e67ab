/** Splits the text `payload` into `lines`, at each `separator`. */
function main (params) {
  const payload = String(params.payload === undefined || params.payload === null ? '' : params.payload)
  const separator = params.separator || /\r?\n/
  return { lines: payload.split(separator), payload: params.payload }
}
