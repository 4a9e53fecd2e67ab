// Makes a README ready to be a page: no HTML comments, and what a page's head needs to know of it.

const FENCE = /^ {0,3}(`{3,}|~{3,})(.*)$/
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$/

function main ({ readme, name }) {
  const lines = readme.split(/\r?\n/)
  const prose = outsideOfFences(lines)
  const headings = lines.filter((line, at) => prose[at]).map((line) => HEADING.exec(line)).filter(Boolean)
  const first = headings.find(([, marks]) => marks === '#')
  console.log(`${name}: ${lines.length} lines, ${headings.length} headings`)
  return {
    title: first ? first[2] : name,
    headings: headings.length,
    markdown: withoutComments(lines, prose)
  }
}

// For each line whether it is prose: neither code in a fence nor the fence.
function outsideOfFences (lines) {
  let open = null
  return lines.map((line) => {
    const [, marks, rest] = FENCE.exec(line) || []
    if (open === null) {
      if (marks) open = marks
      return !marks
    }
    if (marks && marks[0] === open[0] && marks.length >= open.length && !rest.trim()) open = null
    return false
  })
}

// Comments in code are part of what it shows: they stay.
function withoutComments (lines, prose) {
  const parts = []
  lines.forEach((line, at) => {
    if (at > 0 && prose[at] === prose[at - 1]) parts[parts.length - 1].push(line)
    else parts.push([line])
  })
  let at = 0
  return parts.map((part) => {
    const text = part.join('\n')
    const tidied = prose[at] ? text.replace(/<!--[^]*?-->/g, '') : text
    at += part.length
    return tidied
  }).join('\n')
}
