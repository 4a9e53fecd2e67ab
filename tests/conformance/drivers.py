"""The drivers over which kinds are held to one behaviour.

A driver is an entry of `DRIVERS`: what it needs that may be absent, what a server is started with, which kinds it runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Driver:
    """`missing` says why it cannot be used here, and what mends that. `runs`: which kinds, by name, it is tested with.

    `is_common`: `make test` has it, with the kinds that are common too.
    """

    name: str
    missing: Callable[[], str | None]
    runs: Callable[[str], bool] = lambda kind: True
    settings: dict[str, Any] = field(default_factory=dict)
    is_common: bool = False


def _needs(program: str, package: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(program) else f"{program} is not installed: apt-get install {package}"


DRIVERS = (
    Driver("fork", _needs("bwrap", "bubblewrap"), lambda kind: kind.startswith("python:"), is_common=True),
    Driver("bwrap", _needs("bwrap", "bubblewrap"), is_common=True),
    # Swift is built in a root file system of its own
    Driver("process", lambda: None, lambda kind: not kind.startswith("swift:"), settings={"trust_all_code": "true"}),
)
