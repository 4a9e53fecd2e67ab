"""Tells a real story from end to end: each step prints what it expected, what came, and how long it took.

Exit status: 0 when all came as expected, 1 when something surprising came, 2 when something needed is missing.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stage import Stage
    from steps import Facts, Step, Told

HERE = Path(__file__).parent
SHOWN = 100
"""Longest text of one fact that is printed; all of it is compared."""
WIDEST = 300
LINES = 20
"""Longest account of a surprise, and of the server's log after it; the end of each is shown."""

BOLD, DIM, GREEN, RED = "1", "2", "32", "31"


def main() -> int:
    if missing := what_is_missing():
        print(f"the demo needs {missing}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # unwinds: the server is stopped
    from stage import Stage
    from steps import STEPS

    with Stage(say) as stage:
        return tell(STEPS, stage)


def what_is_missing() -> str | None:
    if shutil.which("node") is None:
        return "Node.js 20 below /usr"
    for module in ("markdown", "PIL"):
        if importlib.util.find_spec(module) is None:
            return f"the Python package '{module}': make install"
    if not (HERE / "node_modules" / "openwhisk").is_dir():
        return "its npm packages: npm ci --prefix demo"
    return None


def tell(steps: Sequence[Step], stage: Stage) -> int:
    """Runs the steps in order and prints them, then the table; the exit status."""
    from stage import Over

    rows: list[tuple[str, bool, int]] = []
    for number, step in enumerate(steps, 1):
        print(f"\n{colour(f'{number}/{len(steps)}  {step.sentence}', BOLD)}", flush=True)
        began_s = time.monotonic()
        is_over, is_told = False, False
        try:
            told = step.run(stage)
        except Exception as error:  # the top of a step: whatever it is, it is a surprise to be told
            is_over = isinstance(error, Over)
            problem = explain(error)
        else:
            show(told)
            problem = difference(told)
            is_told = told.came == told.expected
        took_ms = round((time.monotonic() - began_s) * 1000)
        rows.append((step.name, is_told, took_ms))
        say(f"took {took_ms} ms")
        if not is_told:
            print(colour(f"   SURPRISE\n{indented(problem)}", RED))
            if complaints := stage.complaints():
                print(colour(f"   The server's log ends with:\n{indented(complaints)}", DIM))
        if is_over:
            break
    table(rows, len(steps))
    return 0 if len(rows) == len(steps) and all(is_told for _, is_told, _ in rows) else 1


# ── what is printed ─────────────────────────────────────────────────────────────────────────────────────────────────


def say(text: str) -> None:
    print(colour(f"   {text}", DIM), flush=True)


def show(told: Told) -> None:
    print(f"   expected  {line(told.expected)}\n   came      {line(told.came)}")
    if told.note:
        say(told.note)


def table(rows: Sequence[tuple[str, bool, int]], planned: int) -> None:
    width = max(len(name) for name, _, _ in rows)
    print()
    for name, is_told, took_ms in rows:
        outcome = colour("as expected", GREEN) if is_told else colour("SURPRISE   ", RED)
        print(f"   {name:<{width}}  {outcome}  {took_ms:>6} ms")
    good = sum(is_told for _, is_told, _ in rows)
    total_s = sum(took_ms for _, _, took_ms in rows) / 1000
    print(f"\n   {good} of {planned} steps came as expected, in {total_s:.1f} s", flush=True)


def line(facts: Facts) -> str:
    return "; ".join(f"{name}: {short(value)}" for name, value in facts.items())


def short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… ({len(text)} characters)"


def difference(told: Told) -> str:
    """Line by line what came otherwise."""
    expected, came = (json.dumps(side, indent=1, sort_keys=True).splitlines() for side in (told.expected, told.came))
    return "\n".join(difflib.unified_diff(expected, came, "expected", "came", n=1, lineterm=""))


def explain(error: Exception) -> str:
    from stage import Surprise

    return str(error) if isinstance(error, Surprise) else "".join(traceback.format_exception(error)).rstrip()


def indented(text: str) -> str:
    """The end of a text, as far as a reader looks at it."""
    return "\n".join(f"   {one[:WIDEST]}" for one in text.splitlines()[-LINES:])


def colour(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() else text


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
