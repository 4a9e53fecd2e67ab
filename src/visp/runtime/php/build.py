"""Brings what `composer.json` names to where a PHP action finds it: `vendor/`. No script and no plugin runs."""

import os
import subprocess

from building import TMP, Failed, copy, resolve, say

COMPOSER = ("/usr/bin/composer", "/usr/local/bin/composer")
OPTIONS = ("--no-dev", "--no-scripts", "--no-plugins", "--no-interaction", "--no-progress", "--no-ansi")
EXTENSIONS = ("ctype", "curl", "iconv", "intl", "mbstring", "phar", "tokenizer", "zip")
"""What composer uses; Debian's PHP has them as files that its own settings name, which are not in a sandbox."""


def build(source, target, main):
    composer = next((path for path in COMPOSER if os.path.exists(path)), None)
    if composer is None:
        raise Failed("composer.json names packages, and composer is not on the server: apt-get install composer", False)
    copy(source, target)
    php = os.environ["PHP"]
    folder = subprocess.check_output([php, "-n", "-r", "echo ini_get('extension_dir');"], text=True)
    found = [name for name in EXTENSIONS if os.path.exists(os.path.join(folder, name + ".so"))]
    say("resolving composer.json")
    env = {"COMPOSER_HOME": os.path.join(TMP, "composer"), "COMPOSER_ALLOW_SUPERUSER": "1"}
    loaded = [word for name in found for word in ("-d", "extension=" + name)]
    resolve([php, "-n", *loaded, composer, "install", *OPTIONS], target, env)
