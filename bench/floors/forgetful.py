"""A visp that writes nothing down: its ledger is memory. What durability costs is measured against it.

`python -m bench.floors.forgetful start …`, like `python -m visp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp import shard
from visp.cli.main import main
from visp.store.memory import MemoryLedger

if TYPE_CHECKING:
    from pathlib import Path

    from visp.clock import Clock
    from visp.settings import Settings
    from visp.telemetry.metrics import Family


class Forgetful(MemoryLedger):
    """It grows for as long as it lives: for seconds."""

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def measured(self) -> list[Family]:
        return []


async def _open(settings: Settings, data_dir: Path, number: int, clock: Clock) -> Forgetful:
    return Forgetful()


if __name__ == "__main__":
    vars(shard)["_open_ledger"] = _open
    main()
