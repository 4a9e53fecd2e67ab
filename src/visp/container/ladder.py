"""Which sandbox is tried after which, where the operator names none, and what one says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.container.local import LocalDriver
from visp.telemetry.metrics import Family

if TYPE_CHECKING:
    from visp.container.base import Driver

DRIVER_INFO = "visp_driver_info"
FIRST = "fork"
_BELOW = {"fork": "bwrap", "bwrap": "nsjail", "nsjail": "landlock"}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What holds code in: the driver, how its containers are bounded, and what is missing."""

    driver: str
    limits: str
    missing: tuple[str, ...]


def below(name: str) -> str | None:
    """The driver to try when this one does not work; None below the last. `process` is on no ladder."""
    return _BELOW.get(name)


def standing(driver: Driver) -> Standing:
    """Of a driver that was started."""
    if not isinstance(driver, LocalDriver):
        return Standing(driver=driver.name, limits="the engine's", missing=())
    missing = list(driver.lacks)
    groups = ", ".join(driver.cgroups.hierarchies)
    if driver.cgroups.bounds_memory:
        limits = f"control groups ({groups})"
    else:
        limits = "rlimits of each process, and a watch on the sum of their memory"
        missing.append("a limit of the kernel on a container's memory")
    if not driver.cgroups.can_freeze:
        missing.append("freezing between invocations, for which signals stand in")
    return Standing(driver=driver.name, limits=limits, missing=tuple(missing))


def families(known: Standing) -> list[Family]:
    """For a scrape."""
    return [
        Family(
            DRIVER_INFO,
            "The container driver in use, what bounds its containers, and what it lacks",
            "gauge",
            {(known.driver, known.limits, "; ".join(known.missing)): 1},
            ("driver", "limits", "missing"),
        )
    ]
