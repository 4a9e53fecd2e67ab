"""Drivers of servers that are to be killed: `visp start --driver tests.crash.drivers:Counting`.

Both arm the crash point that their environment names. `Counting` runs nothing, and writes down each activation that it
would have run; code of `Trusting` does that itself.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from tests.crash import points

from visp.container.fake import Act, FakeDriver
from visp.container.process import ProcessDriver
from visp.settings import Settings

EFFECTS = "CRASH_EFFECTS"
"""The file that says which activations had their effect: a line of id and request for each."""


class _Argument(msgspec.Struct):
    ms: float = 0.0
    n: int = 0


class _Run(msgspec.Struct):
    activation_id: str
    value: _Argument


class Counting(FakeDriver):
    """Runs take `ms` of their argument and answer it; `n` is the number of the request that caused them."""

    def __init__(self, settings: Settings | None = None, data_dir: Path | None = None) -> None:
        points.arm()
        super().__init__(settings, data_dir)
        self._effects = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.on_run = self._count

    def _count(self, line: bytes) -> Act:
        run = msgspec.json.decode(line, type=_Run)
        os.write(self._effects, f"{run.activation_id} {run.value.n}\n".encode())
        return Act(reply=msgspec.json.encode(run.value), after_s=run.value.ms / 1000)


class Trusting(ProcessDriver):
    """Real containers, whose code can reach the file of effects."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        points.arm()
        super().__init__(settings, data_dir)


def code(effects: Path) -> str:
    """Python for `Trusting` that does what `Counting` does."""
    return (
        "import os, time\ndef main(p):\n"
        f"  file = os.open({str(effects)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)\n"
        "  os.write(file, (os.environ['__OW_ACTIVATION_ID'] + ' ' + str(p.get('n', 0)) + '\\n').encode())\n"
        "  os.close(file)\n"
        "  time.sleep(p.get('ms', 0) / 1000)\n"
        "  return {'ms': p.get('ms', 0), 'n': p.get('n', 0)}\n"
    )
