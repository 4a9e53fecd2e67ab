"""What is imported before the port listens is budgeted."""

from __future__ import annotations

import subprocess
import sys

BEFORE_LISTENING = (
    "visp.cli.start, visp.serving, visp.roles, visp.store.ledger, visp.store.sqlite, visp.store.filesystem, "
    "visp.container.bwrap, visp.invoker.invoker, visp.invoker.code, visp.runtime.client, uvicorn, uvloop"
)
HEAVY = ("rich", "cryptography", "hypothesis", "yaml", "pydantic", "xml")


def test_the_start_path_imports_nothing_heavy() -> None:
    program = f"import sys\nimport {BEFORE_LISTENING}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert [name for name in HEAVY if name in loaded] == []
    ours = (
        "visp",
        "uvicorn",
        "uvloop",
        "httptools",
        "starlette",
        "msgspec",
        "click",
        "anyio",
        "typing_extensions",
        "h11",
    )
    third = {
        name.partition(".")[0]
        for name in loaded
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("_")
    }
    assert third <= {*ours, "cython_runtime", "sniffio", "idna", "dotenv", "packaging"}, sorted(third)
