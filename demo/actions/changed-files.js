// Tells what a push to a repository on GitHub has changed. Its argument is the payload that GitHub posts.

function main (push) {
  const status = new Map() // of each file, as the latest commit left it
  for (const commit of push.commits) {
    console.log(`${commit.id.slice(0, 7)} ${commit.message.split('\n')[0]}`)
    for (const change of ['added', 'modified', 'removed']) {
      for (const file of commit[change]) status.set(file, change)
    }
  }
  const files = {}
  for (const [file, change] of status) (files[change] ??= []).push(file)
  const event = push.__ow_headers?.['x-github-event'] ?? null
  return { repository: push.repository.full_name, ref: push.ref, event, files }
}
