"""Brings the gems of a Ruby action into `vendor/bundle`, where its launcher finds them: out of its `vendor/cache` where
it has one, else from the registry that its `Gemfile` names.

Gems with extensions in C are compiled where the build's root has a compiler.
"""

import os
import subprocess

from building import AGAIN, TMP, Failed, Unreached, copy, resolve, run, say

CACHE, GEMS = "vendor/cache", "vendor/bundle"
NO_CACHE = "Invalid Binary: vendor/cache folder is not found. Please make sure you have used valid zip binary."


def build(source, target, main):
    copy(source, target)
    if os.path.isdir(os.path.join(target, GEMS)):
        return
    ruby, has_cache = os.environ["RUBY"], os.path.isdir(os.path.join(target, CACHE))
    if subprocess.call([ruby, "-e", "require 'bundler'"], stderr=subprocess.DEVNULL) != 0:
        raise Failed("Gemfile names gems, and bundler is not on the server: apt-get install ruby-bundler", False)
    env = {
        "HOME": TMP,
        "BUNDLE_GEMFILE": os.path.join(target, "Gemfile"),
        "BUNDLE_PATH": os.path.join(target, GEMS),
        "BUNDLE_APP_CONFIG": os.path.join(TMP, "bundle"),
        "BUNDLE_DISABLE_SHARED_GEMS": "true",
        "BUNDLE_RETRY": "1",
    }
    install = [ruby, "-S", "bundle", "install"]
    if has_cache:
        run([*install, "--local", "--quiet"], target, env)
        return
    say("resolving Gemfile")
    try:
        resolve(install, target, env)
    except Unreached:
        raise Failed(f"{NO_CACHE} {AGAIN}", is_final=False) from None
