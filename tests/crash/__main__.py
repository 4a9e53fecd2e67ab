"""`python -m tests.crash --kills 500 --seed 7`: the kills, and a table of what came of them; 1 if anything was lost."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.crash.book import Tally
from tests.crash.harness import Report, run

COLUMNS = (
    ("kills", "kills"),
    ("given", "ids given"),
    ("lost", "lost"),
    ("twice", "twice"),
    ("misplaced", "wrong namespace"),
    ("unread", "PUTs lost"),
    ("wrong", "wrong"),
    ("interrupted", "interrupted"),
    ("broken", "container lost"),
    ("slowest_ready_s", "slowest ready"),
    ("slowest_terminal_s", "slowest terminal"),
)


def table(report: Report) -> str:
    """A line for each kind of kill, and what else is worth knowing."""
    rows = [["killed", *(title for _, title in COLUMNS)]]
    for kind, tally in report.tallies.items():
        rows.append([kind, *(_cell(tally, name) for name, _ in COLUMNS)])
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += [
        f"{report.kills} kills in {report.took_s:.0f} s; {report.rate_per_s:.0f} activations/s of load; "
        f"{len(report.reached)} crash points reached, {report.reached.total()} times",
        f"points not reached in time: {dict(report.missed) or 'none'}; errors logged: {dict(report.errors) or 'none'}",
        f"SEED={report.seed}",
    ]
    return "\n".join(lines)


def _cell(tally: Tally, name: str) -> str:
    value = getattr(tally, name)
    return f"{value:.2f} s" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    named = parser.parse_args()
    print(f"SEED={named.seed}", flush=True)
    began_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began_s:6.0f} s  {line}", flush=True)

    report = run(named.kills, named.seed, say)
    print(table(report))
    for sentence in report.violations[:50]:
        print(f"VIOLATED: {sentence}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
