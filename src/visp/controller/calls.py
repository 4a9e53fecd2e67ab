"""What is counted of calls of APIs: by API and class of status, how long they took, and why some were refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.telemetry.metrics import Family, Histogram, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable

CALLS = "visp_gateway_calls_total"
SECONDS = "visp_gateway_call_seconds"
REFUSALS = "visp_gateway_refusals_total"

NAMED_LIMIT = 100
"""APIs that have a label of their own, those that were called first since the start; all others share one."""
OTHERS = "other"
KEY, TOKEN, RATE, QUOTA = "key", "token", "rate", "quota"


class Calls:
    """One for a server."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, str], str] = {}
        self._calls = Tally()
        self._seconds = Histogram()
        self._refusals = Tally()

    def add(self, namespace: str, base_path: str, status: int, us: int) -> None:
        """Counts a call that was answered; `us` is until its answer began."""
        label = self._labels.get((namespace, base_path))
        if label is None:
            label = OTHERS
            if len(self._labels) < NAMED_LIMIT:
                label = self._labels[namespace, base_path] = f"{namespace}{base_path}"
        self._calls.add(label, f"{status // 100}xx")
        self._seconds.add(max(us, 1))

    def refuse(self, reason: str) -> None:
        self._refusals.add(reason)

    def measured(self) -> Iterable[Family]:
        """For a scrape."""
        told = "Calls of APIs: the first that were called by name, then the others; by class of status."
        yield Family(CALLS, told, "counter", self._calls.samples(), ("api", "status"))
        yield Family(
            SECONDS, "How long calls of APIs took until they were answered.", "histogram", {(): self._seconds.shown()}
        )
        told = "Calls of APIs that were refused: for their key or token, by a rate limit or a quota."
        yield Family(REFUSALS, told, "counter", self._refusals.samples(), ("reason",))
