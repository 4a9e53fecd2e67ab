"""Brings what `package.json` names to where an action of Node.js or Bun finds it: `node_modules`.

No script of a package runs. Where no registry answers, modules that the kind brings stand in for it, if they are all
that is named.
"""

import json
import os
import shutil

from building import TMP, Failed, Unreached, copy, resolve, say

NPM = ("lib/node_modules/npm/bin/npm-cli.js", "share/nodejs/npm/bin/npm-cli.js")
"""Where npm lies beside a Node.js; Debian's is elsewhere than Node.js' own."""
PLACES = ("/usr", "/usr/local")
LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
OPTIONS = ("--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--no-update-notifier")
BUN_OPTIONS = ("--production", "--ignore-scripts", "--no-progress", "--no-summary", "--backend=copyfile")


def build(source, target, main):
    copy(source, target)
    say("resolving package.json")
    try:
        if "BUN" in os.environ:
            cache = {"BUN_INSTALL_CACHE_DIR": os.path.join(TMP, "bun")}
            resolve([os.environ["BUN"], "install", *BUN_OPTIONS], target, cache)
        else:
            resolve([*npm(target), "--loglevel=error", *OPTIONS], target)
    except (Unreached, NoManager):
        named = dependencies(os.path.join(target, "package.json"))
        if not named or not all(is_brought(name) for name in named):
            raise
        say("not resolved: the modules that the kind brings are used, whatever their versions")
        shutil.rmtree(os.path.join(target, "node_modules"), ignore_errors=True)


class NoManager(Failed):
    """Nothing is here that could ask a registry."""


def npm(target):
    node = os.environ["NODE"]
    places = (os.path.dirname(os.path.dirname(node)), *PLACES)
    program = next((path for at in places for name in NPM if os.path.exists(path := os.path.join(at, name))), None)
    if program is None:
        sentence = "package.json names packages, and npm is not installed on the server: apt-get install npm"
        raise NoManager(sentence, False)
    has_lock = any(os.path.exists(os.path.join(target, name)) for name in LOCKS)
    return [node, program, "ci" if has_lock else "install"]


def dependencies(path):
    """The names of what is needed while the action runs; none where that cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            named = json.load(file).get("dependencies", {})
    except (OSError, ValueError, AttributeError, RecursionError):
        return []
    return list(named) if isinstance(named, dict) else []


def is_brought(name):
    """Whether the kind has a module of this name."""
    is_name = not {"", ".", ".."} & set(name.split("/"))  # a scope's name has a slash
    return is_name and os.path.isfile(os.path.join(os.environ["MODULES"], name, "package.json"))
