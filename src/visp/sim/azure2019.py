"""The Azure Functions trace of 2019: counts for each function and minute, quantiles of durations and of memory.

Three files a day, `dNN` from d01 on; the last two may be missing (the released trace itself lacks memory on two days):
`invocations_per_function_md.anon.dNN.csv`, `function_durations_percentiles.anon.dNN.csv`,
`app_memory_percentiles.anon.dNN.csv`. What the trace does not tell is drawn, by the seed and the function's name: where
within its minute an invocation lies, how long each runs (between the quantiles), durations and memory that are missing
(`published`), and cold starts. A timer's invocations lie at the same second of each of its minutes.

A function is an action, its owner a namespace; an application's memory is shared out evenly among its functions, as in
FaasCache (ASPLOS 2021). Of a day the counts that are not zero are held in memory, a minute's invocations are made in
portions.
"""

from __future__ import annotations

import bisect
import re
from array import array
from typing import TYPE_CHECKING

from visp.sim import published
from visp.sim.tables import Rows, find
from visp.sim.workload import LONGEST_RUN_S, Actions, WorkloadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from random import Random

    from visp.sim.workload import Arrival

MINUTES = 1440
FUNCTIONS_LIMIT = 1_000_000
COUNTS_LIMIT = 100_000_000
"""Counts of one day that are not zero: 800 MB."""
PORTION = 100_000
"""Invocations that are held at once."""

INVOCATIONS = "invocations_per_function_md.anon"
DURATIONS = "function_durations_percentiles.anon"
MEMORY = "app_memory_percentiles.anon"
NAMES = ("HashOwner", "HashApp", "HashFunction")
QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


class Azure2019:
    """`share`: how much of the applications is wanted, chosen by the seed. Raises `WorkloadError`."""

    def __init__(self, folder: Path, *, seed: int, share: float = 1.0, cold_s: float = published.COLD_MEDIAN_S) -> None:
        self._seed = seed
        self._share = share
        self._cold_s = cold_s
        self._days = _days(folder)
        self.actions = Actions()
        self._names: list[str] = []
        self._namespaces: dict[str, int] = {}
        self._numbers: dict[tuple[str, str, str], int] = {}
        self._functions_of_application: dict[tuple[str, str], list[int]] = {}
        self._is_timer = bytearray()
        self._runs_s = array("f")
        """Seven quantiles of each function's durations; negative: unknown until `_fill`."""
        for day in self._days:
            self._read_names(day)
        if not self._numbers:
            raise WorkloadError(f"{folder}: no function in it" + (f" for a share of {share:g}" if share < 1 else ""))
        for day in self._days:
            self._read_durations(folder, _number_of(day))
            self._read_memory(folder, _number_of(day))
        self._fill()
        self.actions.names = self._names
        self.actions.namespaces = list(self._namespaces)
        self.source = f"Azure Functions 2019: {folder}, days: {len(self._days)}, functions: {len(self.actions)}" + (
            f", {share:g} of the applications" if share < 1 else ""
        )

    # ── what is known of the functions ──────────────────────────────────────────────────────────────────────────

    def _read_names(self, day: Path) -> None:
        rows = Rows(day, (*NAMES, "Trigger"))
        for owner, application, function, trigger, _ in rows.read(4):
            key = (owner, application, function)
            if key in self._numbers or not self._is_wanted(owner, application):
                continue
            if len(self._numbers) >= FUNCTIONS_LIMIT:
                raise rows.wrong(f"more than {FUNCTIONS_LIMIT} functions: take a smaller share of them")
            namespace = self._namespaces.setdefault(owner, len(self._namespaces))
            number = self._numbers[key] = self.actions.add(namespace, 0, 0.0)
            self._names.append(f"{application}/{function}")
            self._is_timer.append(trigger == "timer")
            self._functions_of_application.setdefault((owner, application), []).append(number)
        self._runs_s.extend([-1.0] * (len(QUANTILES) * len(self.actions) - len(self._runs_s)))

    def _is_wanted(self, owner: str, application: str) -> bool:
        return self._share >= 1.0 or published.own_dice(self._seed, "share", owner, application).random() < self._share

    def _read_durations(self, folder: Path, day: str) -> None:
        path = find(folder, f"{DURATIONS}.{day}.csv")
        if path is None:
            return
        percents = [f"percentile_Average_{percent}" for percent in (0, 1, 25, 50, 75, 99, 100)]
        rows = Rows(path, (*NAMES, "Average", "Count", "Minimum", "Maximum", *percents))
        for fields in rows.read():
            number = self._numbers.get((fields[0], fields[1], fields[2]))
            if number is None or self._runs_s[number * len(QUANTILES)] >= 0:
                continue  # the first day that tells of it counts
            at = number * len(QUANTILES)
            highest_s = published.SHORTEST_RUN_S
            for offset, name in enumerate(percents):
                highest_s = max(highest_s, rows.number(fields[7 + offset], name) / 1000)
                self._runs_s[at + offset] = min(highest_s, LONGEST_RUN_S)

    def _read_memory(self, folder: Path, day: str) -> None:
        path = find(folder, f"{MEMORY}.{day}.csv")
        if path is None:
            return
        columns = ["HashOwner", "HashApp", "SampleCount", "AverageAllocatedMb"]
        columns += [f"AverageAllocatedMb_pct{percent}" for percent in (1, 5, 25, 50, 75, 95, 99, 100)]
        rows = Rows(path, columns)
        for fields in rows.read():
            functions = self._functions_of_application.get((fields[0], fields[1]))
            if functions is None or self.actions.memory_mb[functions[0]]:
                continue
            needed_mb = rows.number(fields[11], columns[11]) / len(functions)
            for number in functions:
                self.actions.memory_mb[number] = published.memory_limit_mb(needed_mb)

    def _fill(self) -> None:
        """Draws what the files do not tell, each function with dice of its own."""
        actions, width = self.actions, len(QUANTILES)
        for (owner, application, function), number in self._numbers.items():
            dice = published.own_dice(self._seed, "function", owner, application, function)
            actions.cold_s[number] = published.cold_start_s(dice, self._cold_s)
            if self._runs_s[number * width] < 0:
                average_s = published.average_run_s(dice, LONGEST_RUN_S)
                self._runs_s[number * width : (number + 1) * width] = array("f", [average_s] * width)
            if not actions.memory_mb[number]:
                actions.memory_mb[number] = published.memory_limit_mb(published.burr_mb(dice.random()))

    # ── what happens ────────────────────────────────────────────────────────────────────────────────────────────

    def arrivals(self) -> Iterator[Arrival]:
        dice = published.own_dice(self._seed, "arrivals")
        for index, day in enumerate(self._days):
            for minute, (numbers, counts) in enumerate(self._read_counts(day)):
                yield from self._spread(dice, (index * MINUTES + minute) * 60.0, numbers, counts)

    def _read_counts(self, day: Path) -> list[tuple[array[int], array[int]]]:
        """For each minute the functions that were invoked, and how often."""
        minutes = [(array("I"), array("I")) for _ in range(MINUTES)]
        rows = Rows(day, (*NAMES, "Trigger", *map(str, range(1, MINUTES + 1))))
        held = 0
        for fields in rows.read():
            number = self._numbers.get((fields[0], fields[1], fields[2]))
            if number is None:
                continue
            for minute in range(MINUTES):
                text = fields[4 + minute]
                if text == "0":
                    continue
                count = rows.number(text or "0", f"minute {minute + 1}")
                if count != int(count) or count >= 1 << 32:
                    raise rows.wrong(f"minute {minute + 1}: no count: {text[:40]}")
                if count:
                    minutes[minute][0].append(number)
                    minutes[minute][1].append(int(count))
                    held += 1
            if held > COUNTS_LIMIT:
                raise rows.wrong(f"more than {COUNTS_LIMIT} counts in a day: take a smaller share of the applications")
        return minutes

    def _spread(self, dice: Random, begin_s: float, numbers: array[int], counts: array[int]) -> Iterator[Arrival]:
        """One minute, in equal slices of at most about `PORTION` invocations."""
        slices = sum(counts) // PORTION + 1
        slice_s = 60.0 / slices
        for part in range(slices):
            from_s = begin_s + part * slice_s
            portion: list[Arrival] = []
            for number, count in zip(numbers, counts, strict=True):
                here = count * (part + 1) // slices - count * part // slices
                if self._is_timer[number] and slices == 1:
                    # Its phase follows from its number alone, so that all its minutes have the same.
                    step_s = 60.0 / count
                    phase_s = number * 0.6180339887 % 1.0 * step_s
                    portion += [(from_s + phase_s + step_s * i, number, self._run_s(dice, number)) for i in range(here)]
                else:
                    portion += [
                        (from_s + dice.random() * slice_s, number, self._run_s(dice, number)) for _ in range(here)
                    ]
            portion.sort()
            yield from portion

    def _run_s(self, dice: Random, number: int) -> float:
        """A duration between the function's quantiles."""
        drawn = dice.random()
        above = bisect.bisect_right(QUANTILES, drawn)
        at = number * len(QUANTILES) + above
        low, high = QUANTILES[above - 1], QUANTILES[above]
        low_s, high_s = self._runs_s[at - 1], self._runs_s[at]
        return low_s + (high_s - low_s) * (drawn - low) / (high - low)


def _days(folder: Path) -> list[Path]:
    found: dict[str, Path] = {}
    pattern = re.compile(re.escape(INVOCATIONS) + r"\.(d\d\d)\.csv(\.gz)?")
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise WorkloadError(f"{folder}: {error.strerror or error}") from None
    for name in names:
        if match := pattern.fullmatch(name):
            found.setdefault(match[1], folder / name)
    if not found:
        raise WorkloadError(f"{folder}: no file {INVOCATIONS}.d01.csv (or .d02 and so on, plain or .gz) in it")
    return [found[day] for day in sorted(found)]


def _number_of(day: Path) -> str:
    return day.name.removeprefix(f"{INVOCATIONS}.")[:3]
