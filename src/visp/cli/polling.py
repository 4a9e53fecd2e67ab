"""Follows the activations of a namespace: each record once, oldest first, soon after it is listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visp.client import documents
from visp.client.errors import ApiError
from visp.client.rest import PAGE_LIMIT

if TYPE_CHECKING:
    from visp.client.rest import Client


class Poll:
    """Begins at `since_ms`, or after the newest activation there is.

    Lists are sorted by start, records are listed when they end. So each look goes back some time before the newest
    start, and what was shown is remembered for as long: a long run that ends after a later, short one is seen too.
    """

    EVERY_S = 2.0
    BACK_MS = 60_000

    def __init__(self, client: Client, namespace: str, name: str | None, since_ms: int | None) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._shown: dict[str, int] = {}
        if since_ms is None:
            newest = self._listed(limit=1)
            since_ms = max((_start(one) for one in newest), default=0) + 1
        self._first_ms = since_ms
        self._newest_ms = since_ms

    def fresh(self) -> list[dict[str, Any]]:
        """The records that were listed since the last look."""
        since_ms = max(self._first_ms, self._newest_ms - self.BACK_MS)
        self._shown = {id: start for id, start in self._shown.items() if start >= since_ms}
        out = []
        for summary in reversed(self._listed(limit=PAGE_LIMIT, since_ms=since_ms)):
            id = documents.text(summary, "activationId")
            if id in self._shown:
                continue
            record = self._record(id)
            if record is None:
                continue
            self._shown[id] = _start(summary)
            self._newest_ms = max(self._newest_ms, _start(summary))
            out.append(record)
        return out

    def _listed(self, *, limit: int, since_ms: int | None = None) -> list[dict[str, Any]]:
        raw = self._client.activations(self._namespace, name=self._name, limit=limit, since_ms=since_ms)
        return documents.objects(documents.value(raw))

    def _record(self, id: str) -> dict[str, Any] | None:
        """The whole record; None when it is not there (yet, or any more)."""
        try:
            record = documents.value(self._client.activation(id, self._namespace))
        except ApiError as error:
            if error.status != 404:
                raise
            return None
        return record if isinstance(record, dict) else None


def _start(summary: dict[str, Any]) -> int:
    return documents.whole(summary, "start") or 0
