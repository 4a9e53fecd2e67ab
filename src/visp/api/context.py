"""What handlers work with: the controller's parts, and one request."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

import msgspec
from starlette.requests import Request

from visp import wording
from visp.clock import Clock
from visp.controller.acks import Acks
from visp.controller.crud import Crud
from visp.controller.fire import Fire
from visp.controller.identities import Identities
from visp.controller.invoke import Invoke
from visp.entity.names import CALLERS_NAMESPACE, DEFAULT_PACKAGE, FullyQualifiedName, parse_name, parse_namespace
from visp.entity.runtime_manifest import Manifest
from visp.entity.subject import Identity
from visp.errors import NotFound, TooLarge, WrongContentType
from visp.scheduler.fleet import Fleet
from visp.settings import Settings
from visp.store.base import ActivationStore
from visp.store.cache import EntityCache


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the API calls; made once by the composition root."""

    settings: Settings
    clock: Clock
    manifest: Manifest
    identities: Identities
    entities: EntityCache
    crud: Crud
    invoke: Invoke
    fire: Fire
    acks: Acks
    fleet: Fleet
    activations: ActivationStore
    unready: Callable[[], str | None]
    """Why the server does not serve yet, or None when it does."""
    build: str
    """When this copy was built: an ISO date."""


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
        return unquote(self.request.path_params[name], errors="surrogateescape")

    @property
    def namespace(self) -> str:
        """The namespace of the path, `_` resolved; raises `BadName`."""
        given = self.segment("namespace")
        return self.identity.namespace if given == CALLERS_NAMESPACE else parse_namespace(given)

    def name(self) -> FullyQualifiedName:
        """The entity that the path names; raises `BadName`, or `NotFound` below a package: there are none yet."""
        namespace, name = self.namespace, parse_name(self.segment("name"))
        if "package" not in self.request.path_params:
            return FullyQualifiedName(namespace, None, name)
        package = parse_name(self.segment("package"))
        return FullyQualifiedName(namespace, None if package == DEFAULT_PACKAGE else package, name)

    async def body(self) -> bytes:
        """The whole body; raises `TooLarge` beyond the server's bound, `WrongContentType` for what is not JSON."""
        limit = self.services.settings.http.body_bytes
        announced = self.request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise TooLarge(wording.TOO_LARGE_TO_PROCESS)
        chunks, size = [], 0
        async for chunk in self.request.stream():
            size += len(chunk)
            if size > limit:
                raise TooLarge(wording.TOO_LARGE_TO_PROCESS)
            chunks.append(chunk)
        body = b"".join(chunks)
        if body:
            check_content_type(self.request.headers.get("content-type"))
        return body


def check_content_type(given: str | None) -> None:
    """Raises `WrongContentType` unless a body announces itself as JSON. None counts as bytes of no known type."""
    kind = (given or "application/octet-stream").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise WrongContentType(kind)


def no_package(name: FullyQualifiedName) -> None:
    """Raises `NotFound` for a packaged name: packages cannot be made yet, so none exists."""
    if name.package is not None:
        raise NotFound()
