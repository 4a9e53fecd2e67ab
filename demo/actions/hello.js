function main ({ name = 'stranger' }) {
  console.log(`greeting ${name}`)
  return { greeting: `Hello ${name}, from Node ${process.version}` }
}
