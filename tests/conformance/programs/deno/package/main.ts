import { word } from './beside.ts'

export default (): object => ({
  beside: word(),
  data: Deno.readTextFileSync('data.txt'),
  is_here: Deno.statSync(`${Deno.cwd()}/data.txt`).isFile
})
