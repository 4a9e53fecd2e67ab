"""The command: measures the goals that are named, or all, and prints them beside their promises."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import goals, machine, page, profile, rig, table
from bench.load import Broken
from bench.measure import Chart, Finding
from bench.report import Report
from visp.client.running import NotReady
from visp.errors import VispError

if TYPE_CHECKING:
    from bench.profile import Line
    from bench.rig import Rig

RESULTS = Path(__file__).with_name("results")
FAILURES = (Broken, NotReady, VispError, TimeoutError)
COMMANDS = ("compare", "gate", "page", "profile")
"""Modules here with a `main` of their own; without one of them the first word is a benchmark."""


def main() -> None:
    arguments = sys.argv[1:]
    if arguments and arguments[0] in COMMANDS:
        importlib.import_module(f"bench.{arguments[0]}").main(arguments[1:])
    else:
        _main(arguments)


def _main(arguments: list[str]) -> None:
    options = _options(arguments)
    try:
        amount = rig.build(rounds=options.rounds, is_quick=options.quick, records=options.records)
    except Broken as error:
        sys.exit(f"bench: {error}")
    report = _measure(options.names or goals.NAMES, amount, is_profiled=options.profile)
    print("\n".join(("", *machine.lines(report.machine), "", table.render(report.findings))))
    for name, reason in report.failures.items():
        print(f"\n{name} could not be measured: {reason}")
    print(f"\n{_keep(report)}")
    sys.exit(1 if report.failures else 0)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench",
        description="Measures what visp promises, beside its floors. "
        f"Other commands, each with --help: {', '.join(COMMANDS)}.",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"one or more of: {', '.join(goals.NAMES)}")
    parser.add_argument("--rounds", type=int, help="how often each side takes its turn (7)")
    parser.add_argument("--quick", action="store_true", help="only to see that everything works: 1 round of a second")
    parser.add_argument(
        "--records", type=int, help=f"how many are stored where many are ({rig.RECORDS:,}; 5,000,000 is promised too)"
    )
    parser.add_argument(
        "--profile",
        action=argparse.BooleanOptionalAction,
        help="whether what is not met is profiled too (yes, where py-spy is installed, but for --quick)",
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in goals.NAMES]:
        parser.error(f"no benchmark is called {', '.join(unknown)}: choose from {', '.join(goals.NAMES)}")
    for name in ("rounds", "records"):
        if (value := getattr(options, name)) is not None and value < 1:
            parser.error(f"--{name} is at least 1")
    if options.profile is None:
        options.profile = profile.is_possible() and not options.quick
    elif options.profile and not profile.is_possible():
        parser.error("--profile needs py-spy: pip install py-spy")
    return options


def _measure(names: list[str] | tuple[str, ...], amount: Rig, *, is_profiled: bool) -> Report:
    began, here = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), machine.describe(amount.node, amount.python)
    findings: list[Finding] = []
    charts: list[Chart] = []
    failures: dict[str, str] = {}
    profiles: dict[str, tuple[Line, ...]] = {}
    for name in names:
        benchmark = goals.benchmark(name)
        print(f"{name}: {benchmark.GOAL.sentence} …", file=sys.stderr, flush=True)
        try:
            found = list(benchmark.measure(amount))
            charts += (part for part in found if isinstance(part, Chart))
            findings += (own := [part for part in found if isinstance(part, Finding)])
            if is_profiled and any(finding.is_met is False for finding in own):
                profiles[name] = _profiled(name)
        except FAILURES as error:
            failures[name] = str(error)
    return Report(
        began=began,
        machine=here,
        rig=amount,
        findings=tuple(findings),
        charts=tuple(charts),
        failures=failures,
        profiles=profiles,
    )


def _profiled(name: str) -> tuple[Line, ...]:
    """The functions that cost most; none where sampling disturbs too much for the benchmark to end."""
    print(f"{name}: where the time goes …", file=sys.stderr, flush=True)
    try:
        return tuple(profile.heaviest(profile.of_benchmark(name)))
    except FAILURES as error:
        print(f"{name} could not be profiled: {error}", file=sys.stderr, flush=True)
        return ()


def _keep(report: Report) -> str:
    """Writes the results and their page; where they are."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{report.began.replace(':', '')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    try:
        path.with_suffix(".html").write_text(page.render(report))
    except Broken as error:
        return f"{path}\nwithout a page: {error}"
    return f"{path}\n{path.with_suffix('.html')}"
