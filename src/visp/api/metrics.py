"""`GET /metrics`: what the server counts, in Prometheus' text form.

On this machine it is open, as the well-known key is; from elsewhere it takes the key of the system's own namespace:
numbers of all namespaces are no single one's business. The library that writes the text is imported by the first
scrape.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

from visp import wording
from visp.api import auth
from visp.api.errors import HttpAnswer
from visp.entity.subject import SYSTEM
from visp.errors import Forbidden
from visp.telemetry.metrics import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import Metric
    from prometheus_client.registry import Collector
    from starlette.requests import Request

    from visp.api.context import Services
    from visp.telemetry.metrics import Family


_IMPORTING = threading.Lock()
"""The library's modules import each other: of two threads that came first at once, one could see a module half made."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def metrics(request: Request, services: Services) -> HttpAnswer:
    """Every family of this shard. Raises `Unauthorized`, or `Forbidden` for the key of any other namespace."""
    await _check_reader(request, services)
    families = services.metrics.families()
    body = await asyncio.to_thread(expose, families, services.metrics.labels)
    return HttpAnswer(200, body, CONTENT_TYPE, is_routed=False)


async def _check_reader(request: Request, services: Services) -> None:
    headers, peer = request.headers, request.client.host if request.client else None
    if auth.is_local(peer, headers):
        return
    identity = await auth.identify(services.identities, headers, peer)
    if identity.namespace != SYSTEM:
        raise Forbidden(wording.not_authorized(["/metrics"]))


def expose(families: Iterable[Family], labels: dict[str, str]) -> bytes:
    """The families as text, each sample with `labels` before its own."""
    with _IMPORTING:
        from prometheus_client.exposition import generate_latest

    return generate_latest(cast("Collector", _Once([_metric(family, labels) for family in families])))


class _Once:
    """A collector of what was read already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _metric(family: Family, labels: dict[str, str]) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    metric: Any = kinds[family.kind](family.name, family.help, labels=[*labels, *family.labels])
    for own, value in sorted(family.samples.items()):
        values = [*labels.values(), *own]
        if isinstance(value, Distribution):
            bounds = [("+Inf" if bound == float("inf") else str(bound), count) for bound, count in value.buckets]
            metric.add_metric(values, bounds, value.sum_s)
        else:
            metric.add_metric(values, value)
    return cast("Metric", metric)
