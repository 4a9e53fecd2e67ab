"""What is imported before the port listens is budgeted."""

from __future__ import annotations

import subprocess
import sys

BEFORE_LISTENING = (
    "visp.cli.start, visp.serving, visp.roles.assembly, visp.store.ledger, visp.store.sqlite, visp.store.index, "
    "visp.store.filesystem, visp.container.bwrap, visp.invoker.invoker, visp.invoker.code, visp.runtime.client, "
    "uvicorn, uvloop"
)
ALLOWED = {
    "uvicorn",
    "uvloop",
    "httptools",
    "starlette",
    "msgspec",
    "click",
    "anyio",
    "idna",
    "typing_extensions",
    "h11",
}
"""What the server library and its parts bring, and nothing else from outside of the standard library."""
HEAVY = {"rich", "cryptography", "xml", "multiprocessing.pool", "email.mime", "unittest"}
ASKED_FOR = {"visp.api.openapi", "visp.api.operations", "visp.api.schemas", "visp.api.swagger", "visp.api.page"}
"""Made when somebody asks for the document."""

# `_distutils_hack` comes with every environment that has setuptools, by a `.pth` file
PROGRAM = f"""
import sys
import {BEFORE_LISTENING}
for name, module in list(sys.modules.items()):
    print(name, "installed" if "site-packages" in str(getattr(module, "__file__", "")) else "standard")
"""


def test_the_start_path_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    installed = {
        name.partition(".")[0] for name, where in loaded.items() if where == "installed" and name != "_distutils_hack"
    }
    assert installed <= ALLOWED, sorted(installed - ALLOWED)
    assert not HEAVY & loaded.keys()
    assert not ASKED_FOR & loaded.keys()
