// Makes a README ready to be a page: without HTML comments, and with what a page's head needs to know of it.

const CODE = '(^ {0,3}(`{3,}|~{3,}).*\\n[^]*?(?:^ {0,3}\\2[`~]*[ \\t]*$|(?![^])))'
const CODE_OR_COMMENT = new RegExp(`${CODE}|<!--[^]*?-->`, 'gm')
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$/gm

function main ({ readme, name }) {
  // comments in code are part of what it shows: they stay
  const markdown = readme.replace(/\r\n/g, '\n').replace(CODE_OR_COMMENT, (_, code = '') => code)
  const headings = [...markdown.replace(new RegExp(CODE, 'gm'), '').matchAll(HEADING)]
  const first = headings.find(([, marks]) => marks === '#')
  console.log(`${name}: ${readme.length} characters, ${markdown.length} without comments, ${headings.length} headings`)
  return { title: first ? first[2] : name, headings: headings.length, markdown }
}
