"""Shows a hello on the server that `make start` has just begun: one action in JavaScript, one in Python."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

READY_S = 60.0
URL = f"http://{os.environ.get('VISP_HOST', '127.0.0.1')}:{os.environ.get('VISP_PORT', '3233')}"
HERE = Path(__file__).parent
VISP = [sys.executable, "-m", "visp", "--apihost", URL]


def main() -> None:
    if not is_ready():
        return  # the server has said what is wrong
    for name, file in (("welcome", "hello.js"), ("welcome-python", "hello.py")):
        show("action", "update", name, str(HERE / "actions" / file))
        show("action", "invoke", name, "--result", "--param", "name", "World")


def is_ready() -> bool:
    """Waits until the server may run containers; false when it has ended before that."""
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{URL}/ready", timeout=1):
                return True
        except urllib.error.URLError:
            if os.getppid() == 1:
                return False
            time.sleep(0.05)
    return False


def show(*words: str) -> None:
    print("$ visp", *words, flush=True)
    subprocess.run([*VISP, *words], check=False, env=os.environ | {"WSK_CONFIG_FILE": ""})


main()
