"""`Server-Timing`: where the time of an activation went, in the answer that came of it. Pure.

Source of the format: W3C, "Server Timing". Numbers are milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from visp.api.errors import HttpAnswer
    from visp.entity.activation import ActivationHead

ASKED = "x-ow-server-timing"
"""A request's header: `on` asks for it."""


def timed(answer: HttpAnswer) -> HttpAnswer:
    """The answer with the header, if an activation's outcome is in it."""
    if answer.ran is None:
        return answer
    return msgspec.structs.replace(answer, headers=(*answer.headers, ("Server-Timing", told(answer.ran))))


def told(head: ActivationHead) -> str:
    """`queue`: until a container was chosen; `start`: until that was up; `init`: until it had the code; `run`.

    What did not happen is left out. A composite has a `run` alone.
    """
    phases, out = head.phases, []
    if phases is None:
        return f"run;dur={head.duration_ms or 0}"
    out.append(_entry("queue", phases.placed))
    at = phases.placed
    for name, then in (("start", phases.created), ("init", phases.initialised)):
        if then is not None:
            out.append(_entry(name, then - at))
            at = then
    if phases.run is not None and phases.answered is not None:
        out.append(_entry("run", phases.answered - phases.run))
    if phases.cold is not None:
        out.append(f'cold;desc="{phases.cold}"')
    return ", ".join(out)


def _entry(name: str, us: int) -> str:
    return f"{name};dur={max(us, 0) / 1000:.3f}"
