/** The URL by which an action or a trigger is called, or a web action is found. */
const EXTENSIONS = ['.html', '.http', '.json', '.svg', '.text']

function main ({ path = '', web, ext, trigger }) {
  const host = process.env.__OW_API_HOST
  const namespace = process.env.__OW_NAMESPACE
  const name = String(path)
  if (!web) {
    if (trigger && name.includes('/')) return { error: 'triggers are not allowed in packages.' }
    return { url: `${host}/api/v1/namespaces/${namespace}/${trigger ? 'triggers' : 'actions'}/${name}` }
  }
  if (trigger) return { error: 'triggers are not allowed for web actions.' }
  if (ext && !EXTENSIONS.includes(ext)) {
    return { error: `extension for web action must be one of [${EXTENSIONS.map((one) => `"${one}"`).join(', ')}].` }
  }
  return { url: `${host}/api/v1/web/${namespace}/${name.includes('/') ? '' : 'default/'}${name}${ext || ''}` }
}
