"""Brings what `package.json` names to where a Node.js action finds it: `node_modules`. No script of a package runs."""

import os

from building import Failed, copy, resolve, say

NPM = ("lib/node_modules/npm/bin/npm-cli.js", "share/nodejs/npm/bin/npm-cli.js")
"""Where npm lies beside a Node.js; Debian's is elsewhere than Node.js' own."""
PLACES = ("/usr", "/usr/local")
LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
OPTIONS = ("--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--no-update-notifier")


def build(source, target, main):
    node = os.environ["NODE"]
    places = (os.path.dirname(os.path.dirname(node)), *PLACES)
    npm = next((path for place in places for name in NPM if os.path.exists(path := os.path.join(place, name))), None)
    if npm is None:
        raise Failed("package.json names packages, and npm is not installed on the server: apt-get install npm", False)
    copy(source, target)
    how = "ci" if any(os.path.exists(os.path.join(target, name)) for name in LOCKS) else "install"
    say("resolving package.json")
    resolve([node, npm, how, "--loglevel=error", *OPTIONS], target)
