"""Makes one file of a Deno action and all that it imports, by the map of its `deno.json` or `package.json`.

It takes the place of `main.ts`: what runs it looks at no configuration, and reaches no registry. Other files stay.
"""

import os
import shutil

from building import TMP, Failed, copy, resolve, say

FILES = ("main.ts", "main.js", "main.mjs")
"""As the launcher looks for them."""
BUNDLED = "main.js"


def build(source, target, main):
    copy(source, target)
    found = next((name for name in FILES if os.path.isfile(os.path.join(target, name))), None)
    if found is None:
        raise Failed(f"there is none of {', '.join(FILES)} at the root")
    say("resolving what is imported")
    made = os.path.join(TMP, BUNDLED)
    argv = [os.environ["DENO"], "bundle", "--platform", "deno", "--output", made]
    resolve([*argv, os.path.join(target, found)], target, {"HOME": TMP})
    os.remove(os.path.join(target, found))
    shutil.rmtree(os.path.join(target, "node_modules"), ignore_errors=True)
    shutil.move(made, os.path.join(target, BUNDLED))
