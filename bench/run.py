"""The command: measures the goals that are named, or all, and prints them beside their promises."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from bench import goals, machine, rig, table
from bench.load import Broken
from bench.machine import Machine
from bench.measure import Finding
from bench.rig import Rig
from visp.client.running import NotReady
from visp.errors import VispError

RESULTS = Path(__file__).with_name("results")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` keeps."""

    began: str
    machine: Machine
    rig: Rig
    findings: tuple[Finding, ...]
    failures: dict[str, str]
    """Benchmarks that could not be measured, and why."""


def main() -> None:
    options = _options()
    try:
        amount = rig.build(rounds=options.rounds, is_quick=options.quick)
    except Broken as error:
        sys.exit(f"bench: {error}")
    report = _measure(options.names or goals.NAMES, amount)
    print("\n".join(("", *machine.lines(report.machine), "", table.render(report.findings))))
    for name, reason in report.failures.items():
        print(f"\n{name} could not be measured: {reason}")
    if options.json:
        print(f"\n{_keep(report)}")
    sys.exit(1 if report.failures else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measures what visp promises, beside its floors.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"one or more of: {', '.join(goals.NAMES)}")
    parser.add_argument("--rounds", type=int, help="how often each side takes its turn (7)")
    parser.add_argument("--quick", action="store_true", help="only to see that everything works: 2 rounds of a second")
    parser.add_argument("--json", action="store_true", help="also keeps the results in bench/results/")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in goals.NAMES]:
        parser.error(f"no benchmark is called {', '.join(unknown)}: choose from {', '.join(goals.NAMES)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds is at least 1")
    return options


def _measure(names: list[str] | tuple[str, ...], amount: Rig) -> Report:
    began, here = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), machine.describe(amount.node, amount.python)
    findings: list[Finding] = []
    failures: dict[str, str] = {}
    for name in names:
        benchmark = goals.benchmark(name)
        print(f"{name}: {benchmark.GOAL.sentence} …", file=sys.stderr, flush=True)
        try:
            findings += benchmark.measure(amount)
        except (Broken, NotReady, VispError, TimeoutError) as error:
            failures[name] = str(error)
    return Report(began=began, machine=here, rig=amount, findings=tuple(findings), failures=failures)


def _keep(report: Report) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{report.began.replace(':', '')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    return path
