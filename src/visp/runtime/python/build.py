"""Brings what `requirements.txt` names to where a Python action finds it: `virtualenv`, as its launcher does.

Packages come as wheels; with `VISP_FROM_SOURCE` their own code may build them too, here in the sandbox.
"""

import os
import subprocess

from building import Failed, copy, resolve, say

FILE = "requirements.txt"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""Those of the system: pip trusts them by itself."""
OF_PIP = {
    "PIP_INDEX_URL": "UV_INDEX_URL",
    "PIP_EXTRA_INDEX_URL": "UV_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_CERT": "SSL_CERT_FILE",
}
"""What an operator has told pip, by uv's names for it."""


def build(source, target, main):
    copy(source, target)
    python = os.environ["PYTHON"]
    asked = [python, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    version = subprocess.check_output(asked, text=True)
    site = os.path.join(target, "virtualenv", "lib", "python" + version.strip(), "site-packages")
    os.makedirs(site)
    say("resolving " + FILE)
    wheels = [] if os.environ.get("VISP_FROM_SOURCE") else ["--only-binary", ":all:"]
    given = ["--target", site, *wheels, "-r", FILE]
    if os.path.exists(os.environ["UV"]):
        argv = [os.environ["UV"], "pip", "install", "--python", python, "--no-cache", "--no-python-downloads"]
        resolve([*argv, *(["--system-certs"] if os.path.exists(CERTIFICATES) else []), *given], target, of_pip())
    else:
        if subprocess.call([python, "-I", "-c", "import pip"], stderr=subprocess.DEVNULL) != 0:
            raise Failed("pip is not on the server: apt-get install python3-pip, or visp runtime install uv", False)
        options = ["--no-input", "--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "off"]
        options += ["--no-compile", "--root-user-action", "ignore", "--no-warn-script-location"]
        resolve([python, "-m", "pip", "install", *options, *given], target)
    # by content: the files get new times on their way out of here. What does not compile is for another Python.
    how = ["-q", "--invalidation-mode", "unchecked-hash", "-s", target, "-p", "/action"]
    subprocess.call([python, "-I", "-m", "compileall", *how, site], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def of_pip():
    given = os.environ
    return {uv: given[pip] for pip, uv in OF_PIP.items() if pip in given and uv not in given}
