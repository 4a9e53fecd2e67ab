/** Puts all parameters but `$fieldName` into one, which has that name. */
function main ({ $fieldName: name, ...rest }) {
  if (typeof name !== 'string' || name === '') return { error: "Expected an argument '$fieldName' of type 'string'." }
  return { [name]: rest }
}
