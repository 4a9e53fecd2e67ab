"""What a run found, as it is kept."""

from __future__ import annotations

import msgspec

from bench.machine import Machine
from bench.measure import Chart, Finding
from bench.profile import Line
from bench.rig import Rig


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON of a run."""

    began: str
    machine: Machine
    rig: Rig
    findings: tuple[Finding, ...]
    charts: tuple[Chart, ...]
    failures: dict[str, str]
    """Benchmarks that could not be measured, and why."""
    profiles: dict[str, tuple[Line, ...]]
    """Of benchmarks with a promise that is not kept: the functions that cost most."""
