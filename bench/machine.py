"""The machine that figures were taken on, written beside them."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import msgspec

from visp import __version__

ROOT = Path(__file__).parents[1]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    """The server's."""
    node: str
    action_python: str
    bwrap: str
    wrk: str
    user: str
    load_average: tuple[float, float, float]
    """When the first round began, over 1, 5 and 15 minutes: what others did on the machine."""
    visp: str
    revision: str


def describe(node: str, python: str) -> Machine:
    return Machine(
        cpu=cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30), 1),
        kernel=platform.release(),
        python=platform.python_version(),
        node=_said([node, "--version"]),
        action_python=_said([python, "--version"]).removeprefix("Python "),
        bwrap=_said(["bwrap", "--version"]).removeprefix("bubblewrap "),
        wrk=_said(["wrk", "--version"]).removeprefix("wrk ").partition(" ")[0],
        user="root" if os.geteuid() == 0 else "not root",
        load_average=os.getloadavg(),
        visp=__version__,
        revision=_said(["git", "-C", str(ROOT), "describe", "--always", "--dirty"]),
    )


def lines(machine: Machine) -> list[str]:
    """For people."""
    load = " ".join(f"{value:.2f}" for value in machine.load_average)
    return [
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb} GB, Linux {machine.kernel}, {machine.user}",
        f"visp {machine.visp} ({machine.revision}) on Python {machine.python}; actions: Node.js {machine.node}, "
        f"Python {machine.action_python}; bubblewrap {machine.bwrap}, wrk {machine.wrk}",
        f"load average at the start: {load}",
    ]


def cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def _said(argv: list[str]) -> str:
    """The first line that a program prints, whatever its exit status; `?` where there is none."""
    try:
        asked = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return "?"
    return next(iter((asked.stdout or asked.stderr).splitlines()), "?").strip()
