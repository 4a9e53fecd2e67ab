"""`visp sim`: how the platform would do under a workload, by simulation."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from visp.cli import output
from visp.cli.command import Command
from visp.cli.exits import CommandError, misuse
from visp.client.errors import USAGE

if TYPE_CHECKING:
    from visp.sim.report import Report
    from visp.sim.workload import Workload

INVOKERS_LIMIT = 10_000
MIB = 1024 * 1024
GENERATED_INVOCATIONS = 100_000
KEEP_ALIVE = ("greedy-dual", "timeout", "lru")


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  visp sim
  visp sim --actions 20000 --invocations 1000000 --hours 24 --invokers 100 --memory 64GB
  visp sim --workload azure2019:traces --share 0.01 --hours 6 --plot traces.html
  visp sim --workload azure2021:AzureFunctionsInvocationTraceForTwoWeeksJan2021.txt --policy lru --json
""",
)
@click.option(
    "--workload",
    "source",
    default="generated",
    show_default=True,
    metavar="SOURCE",
    help="generated, azure2019:FOLDER or azure2021:FILE.",
)
@click.option(
    "--actions", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, help="Generated actions."
)
@click.option(
    "--invocations",
    type=click.IntRange(0),
    metavar="N",
    help="About so many generated, 100000 by default, 0 for the published rates; of a trace the first N.",
)
@click.option(
    "--hours",
    type=click.FloatRange(0, min_open=True),
    metavar="HOURS",
    help="How long the generated workload lasts, 1 by default; of a trace its first hours.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    metavar="PART",
    help="Part of the applications of azure2019 to take, 0.01 for one in a hundred.",
)
@click.option("--invokers", type=click.IntRange(1, INVOKERS_LIMIT), default=10, show_default=True, help="Machines.")
@click.option("--memory", default="16GB", show_default=True, metavar="SIZE", help="For containers, of each invoker.")
@click.option(
    "--starts", type=click.IntRange(1), default=8, show_default=True, help="Container starts at once, of each invoker."
)
@click.option(
    "--idle",
    type=click.FloatRange(0),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an idle container stays at most; of timeout ten minutes.",
)
@click.option(
    "--stem-cells",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    metavar="N",
    help="At most so many of each size while cold starts ask for them; 0 for none.",
)
@click.option(
    "--cold",
    type=click.FloatRange(0, min_open=True),
    default=0.25,
    show_default=True,
    metavar="SECONDS",
    help="The median of cold starts, of which traces do not tell.",
)
@click.option(
    "--policy",
    "policies",
    type=click.Choice(KEEP_ALIVE),
    multiple=True,
    default=KEEP_ALIVE,
    help="Keep-alive policy; may be repeated. All of them by default.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed and inputs give the same bytes.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw into this file: svg, png, pdf, html."
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a line of CSV for each policy.")
def sim(
    source: str,
    actions: int,
    invocations: int | None,
    hours: float | None,
    share: float,
    invokers: int,
    memory: str,
    starts: int,
    idle: float,
    stem_cells: int,
    cold: float,
    policies: tuple[str, ...],
    seed: int,
    plot: Path | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Simulate placement, planning and keep-alive under a workload.

    The server's own functions decide, under virtual time. Prints cold starts, queueing, memory and fairness by policy.
    """
    from visp.sim import plots
    from visp.sim.compare import compare
    from visp.sim.fleet import Setup
    from visp.sim.workload import Cut, WorkloadError

    if as_json and as_csv:
        raise misuse("--json or --csv, not both")
    setup = Setup(
        invokers=invokers,
        memory_mb=_megabytes(memory),
        starts_at_once=starts,
        idle_s=idle,
        stem_cells_most=stem_cells,
    )
    # A simulation makes no circles of objects and ends with the process: looking for some takes a fifth of its time.
    gc.disable()
    shown = _Progress(sys.stderr.isatty())
    try:
        if plot is not None:
            plots.need(plot)
        workload, cut = _workload(source, actions, invocations, hours, share, cold, seed), Cut()
        if source != "generated":
            cut = Cut(None if hours is None else hours * 3600, invocations)
        report = compare(workload, setup, list(dict.fromkeys(policies)), seed=seed, cut=cut, progress=shown.tell)
        if plot is not None:
            plots.write(report, plot)
    except (WorkloadError, plots.PlotError) as error:
        raise CommandError(str(error), USAGE) from None
    except OSError as error:
        raise CommandError(f"{error.filename or plot}: {error.strerror}", USAGE) from None
    finally:
        shown.clear()
        gc.enable()
    _print(report, as_json=as_json, as_csv=as_csv)


def _workload(
    source: str,
    actions: int,
    invocations: int | None,
    hours: float | None,
    share: float,
    cold_s: float,
    seed: int,
) -> Workload:
    kind, _, place = source.partition(":")
    if kind == "generated" and not place:
        from visp.sim.generator import Generated

        wanted = GENERATED_INVOCATIONS if invocations is None else invocations or None
        seconds = 3600 * (1.0 if hours is None else hours)
        return Generated(actions=actions, seconds=seconds, seed=seed, invocations=wanted, cold_s=cold_s)
    if kind == "azure2019" and place:
        from visp.sim.azure2019 import Azure2019

        return Azure2019(Path(place), seed=seed, share=share, cold_s=cold_s)
    if kind == "azure2021" and place:
        from visp.sim.azure2021 import Azure2021

        return Azure2021(Path(place), seed=seed, cold_s=cold_s)
    raise misuse(f"no workload: {source} (generated, azure2019:FOLDER or azure2021:FILE)")


def _megabytes(size: str) -> int:
    from visp.entity.limits import parse_byte_size

    try:
        memory_mb = parse_byte_size(size) // MIB
    except ValueError:
        memory_mb = 0
    if memory_mb < 1:
        raise misuse(f"--memory: no size: {size} (512MB, 64GB)")
    return memory_mb


def _print(report: Report, *, as_json: bool, as_csv: bool) -> None:
    from visp.sim.report import csv, table

    if as_json:
        output.answer(report.to_json())
    elif as_csv:
        output.line(csv(report).rstrip("\n"))
    else:
        head, *rows = table(report)
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        output.line(report.workload)
        if not output.is_terminal():
            output.line(" ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)).rstrip())
        output.table("", head, rows, widths)


class _Progress:
    """One line on the terminal that is written over; nothing where standard error is no terminal."""

    def __init__(self, is_shown: bool) -> None:
        self._is_shown = is_shown
        self._width = 0

    def tell(self, policy: str, arrived: int, at_s: float) -> None:
        if self._is_shown:
            text = f"{policy}: {arrived:,} invocations, {at_s / 3600:.2f} h"
            sys.stderr.write(f"\r{text.ljust(self._width)}")
            sys.stderr.flush()
            self._width = len(text)

    def clear(self) -> None:
        if self._width:
            sys.stderr.write(f"\r{' ' * self._width}\r")
            sys.stderr.flush()
