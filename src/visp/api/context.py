"""What handlers work with: the controller's parts, and one request."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import msgspec
from starlette.requests import Request

from visp.api.errors import JSON
from visp.api.kept import KeptAnswers
from visp.api.paths import decode_segment
from visp.clock import Clock
from visp.controller.acks import Acks
from visp.controller.apis import Apis
from visp.controller.backends import Backends
from visp.controller.batches import Batches
from visp.controller.builds import Builds
from visp.controller.crud import Crud
from visp.controller.delayed import Delayed
from visp.controller.feeds import Feeds
from visp.controller.fire import Fire
from visp.controller.gateway import Gateway
from visp.controller.hooked import Hooked
from visp.controller.idempotency import Idempotency
from visp.controller.identities import Identities
from visp.controller.invoke import Invoke
from visp.controller.later import Later
from visp.controller.packages import Packages
from visp.controller.resolver import Resolver
from visp.controller.sites import Sites
from visp.controller.sockets import Sockets
from visp.controller.streams import Streams
from visp.controller.waits import Waits
from visp.entity.names import CALLERS_NAMESPACE, FullyQualifiedName, parse_name, parse_namespace
from visp.entity.runtime_manifest import Manifest
from visp.entity.subject import Identity
from visp.errors import BodyTooLarge, WrongContentType
from visp.scheduler.fleet import Fleet
from visp.settings import Settings
from visp.store.base import ActivationStore, Promises
from visp.store.cache import EntityCache
from visp.telemetry.metrics import Registry

_MEDIA_TYPE = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+\Z", re.ASCII)
_CHARSET = re.compile(r"charset\s*=\s*\"?([\w.:-]+)", re.ASCII | re.IGNORECASE)


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the API calls; made once by the composition root."""

    settings: Settings
    clock: Clock
    manifest: Manifest
    identities: Identities
    entities: EntityCache
    apis: Apis
    crud: Crud
    resolver: Resolver
    builds: Builds
    packages: Packages
    sites: Sites
    invoke: Invoke
    fire: Fire
    batches: Batches
    later: Later
    delayed: Delayed
    promises: Promises
    idempotency: Idempotency
    acks: Acks
    fleet: Fleet
    activations: ActivationStore
    waits: Waits
    streams: Streams
    sockets: Sockets
    feeds: Feeds
    hooked: Hooked
    gateway: Gateway
    backends: Backends
    domains: dict[str, str]
    """Which namespace an operator gave a domain to."""
    kept: KeptAnswers
    metrics: Registry
    disable: Callable[[], None]
    """Makes it say that it does not serve."""
    unready: Callable[[], str | None]
    """Why the server does not serve yet, or None when it does."""
    build: str
    """When this copy was built: an ISO date."""


EXTRA_LOGGING = "x-ow-extra-logging"


async def collected(request: Request, limit: int, begin: Callable[[], None] = lambda: None) -> bytes:
    """The whole body, which stands in memory once, as it comes and when it is whole; `begin` is called before its
    first byte is taken. Raises `BodyTooLarge`.
    """
    taken, size = io.BytesIO(), 0
    async for chunk in request.stream():
        if chunk and not size:
            begin()
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(None, limit)
        taken.write(chunk)
    return taken.getvalue()  # what was written itself, no copy of it


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One authenticated request to a route of the API."""

    request: Request
    services: Services
    identity: Identity
    transid: str
    query: dict[str, str]
    received_ms: int

    def segment(self, name: str) -> str:
        """A path segment, percent-decoded."""
        return decode_segment(self.request.path_params[name])

    @property
    def namespace(self) -> str:
        """The namespace of the path, `_` resolved; raises `BadName`."""
        given = self.segment("namespace")
        return self.identity.namespace if given == CALLERS_NAMESPACE else parse_namespace(given)

    def name(self) -> FullyQualifiedName:
        """The entity that the path names; raises `BadName`."""
        has_package = "package" in self.request.path_params
        package = parse_name(self.segment("package")) if has_package else None
        return FullyQualifiedName(self.namespace, package, parse_name(self.segment("name")))

    @property
    def is_forced(self) -> bool:
        """Whether records are asked for, whatever a namespace or an action says of them."""
        return self.request.headers.get(EXTRA_LOGGING, "").lower() == "on"

    async def body(self) -> bytes:
        """The whole body; raises `WrongContentType` for what is not JSON, `BodyTooLarge` beyond the server's bound."""
        if self.announced_bytes:
            check_content_type(self.request.headers.get("content-type"))
        return await self.bytes(lambda: check_content_type(self.request.headers.get("content-type")))

    async def bytes(self, begin: Callable[[], None] = lambda: None) -> bytes:
        """The whole body of any type; `begin` is called before its first byte is taken. Raises `BodyTooLarge`."""
        limit, announced = self.services.settings.http.body_bytes, self.announced_bytes
        if announced > limit:
            raise BodyTooLarge(announced, limit)
        return await collected(self.request, limit, begin)

    @property
    def announced_bytes(self) -> int:
        """`Content-Length`, which the parser has checked; 0 without one."""
        return int(self.request.headers.get("content-length", "0"))


def check_content_type(given: str | None) -> None:
    """Raises `WrongContentType` unless a body announces itself as JSON. No type, or none that can be read, counts as
    bytes of no known type.
    """
    kind, _, parameters = (given or "").partition(";")
    kind = kind.strip().lower()
    if kind == JSON:
        return
    if not _MEDIA_TYPE.match(kind):
        raise WrongContentType("application/octet-stream")
    charset = _CHARSET.search(parameters)
    raise WrongContentType(f"{kind}; charset={charset[1].upper()}" if charset else kind)
