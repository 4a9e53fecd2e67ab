"""Brings the gems of a Ruby action out of its `vendor/cache` into `vendor/bundle`, where its launcher finds them.

Gems with extensions in C are compiled where the build's root has a compiler.
"""

import os

from building import Failed, copy, run

CACHE, GEMS = "vendor/cache", "vendor/bundle"
NO_CACHE = "Invalid Binary: vendor/cache folder is not found. Please make sure you have used valid zip binary."


def build(source, target, main):
    copy(source, target)
    if os.path.isdir(os.path.join(target, GEMS)):
        return
    if not os.path.isdir(os.path.join(target, CACHE)):
        raise Failed(NO_CACHE)
    env = {
        "BUNDLE_GEMFILE": os.path.join(target, "Gemfile"),
        "BUNDLE_PATH": os.path.join(target, GEMS),
        "BUNDLE_APP_CONFIG": "/tmp/bundle",
        "BUNDLE_DISABLE_SHARED_GEMS": "true",
    }
    run([os.environ["RUBY"], "-S", "bundle", "install", "--local", "--quiet"], target, env)
