"""Routes of a package's site, and how its files are served: beside its web actions, under the same path."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from visp.api.errors import HttpAnswer, json_answer
from visp.controller.webaction import PREFIX
from visp.entitlement.rights import check_owner
from visp.entity import site as sites
from visp.entity.names import FullyQualifiedName, is_name
from visp.errors import VispError, WrongContentType

if TYPE_CHECKING:
    from starlette.requests import Request

    from visp.api.context import Call, Services
    from visp.entity.package import Package

ZIP = "application/zip"


async def put_site(call: Call) -> HttpAnswer:
    """Replaces the whole site by the files of a zip archive."""
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    given = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != ZIP:
        raise WrongContentType(given or "application/octet-stream", ZIP)
    return json_answer(_listed(await call.services.sites.put(name, await call.bytes())))


async def get_site(call: Call) -> HttpAnswer:
    """Which files there are."""
    name = call.name()
    found = await call.services.resolver.package(call.identity, name, name.id)
    return json_answer(_listed(found.provider))


async def delete_site(call: Call) -> HttpAnswer:
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    return json_answer(_listed(await call.services.sites.delete(name)))


def _listed(package: Package) -> dict[str, object]:
    files = [
        {"path": path, "size": file.size_bytes, "digest": file.digest, "type": sites.content_type(path)}
        for path, file in sorted(package.site.items())
    ]
    return {
        "namespace": package.name.namespace,
        "name": package.name.name,
        "path": f"{PREFIX}{package.name.namespace}/{quote(package.name.name)}/",
        "files": files,
    }


# ── serving ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def serve(request: Request, services: Services) -> HttpAnswer | None:
    """What a request for a file of a site is sent; None where there is none."""
    raw: str = request.scope["raw_path"].decode("latin-1")
    parts = raw[len(PREFIX) :].split("/", 2)
    if request.method not in ("GET", "HEAD") or len(parts) < 2:
        return None
    namespace, name = (unquote(part, errors="replace") for part in parts[:2])
    if not (is_name(namespace) and is_name(name)):
        return None
    owner = await services.identities.owner_of(namespace)
    if owner is None:
        return None
    try:
        full = FullyQualifiedName(namespace, None, name)
        site = (await services.resolver.package(owner, full, full.id)).provider.site
    except VispError:
        return None
    path = unquote(parts[2], errors="replace") if len(parts) == 3 else None
    if not site:
        return None
    if path is None or (path not in site and sites.is_folder(site, path)):
        return HttpAnswer(308, is_routed=False, headers=(("Location", f"{raw}/"),))
    found = sites.find(site, path)
    return None if found is None else await _file(request, services, site, found)


async def _file(request: Request, services: Services, site: sites.Site, path: str) -> HttpAnswer:
    headers = request.headers
    variant = sites.variant(site, path, headers.get("accept-encoding"))
    told = [("ETag", variant.etag), ("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff")]
    if sites.has_variants(site, path):
        told.append(("Vary", "Accept-Encoding"))
    if sites.is_known(variant.etag, headers.get("if-none-match")):
        return HttpAnswer(304, is_routed=False, headers=tuple(told))
    told.append(("Accept-Ranges", "bytes"))
    if variant.encoding is not None:
        told.append(("Content-Encoding", variant.encoding))
    asked = headers.get("range") if headers.get("if-range", variant.etag) == variant.etag else None
    try:
        bounds = sites.parse_range(asked, variant.size_bytes)
    except sites.Unsatisfiable:
        whole = ("Content-Range", f"bytes */{variant.size_bytes}")
        return HttpAnswer(416, is_routed=False, headers=(whole, *told))
    content = await services.sites.read(variant.digest)
    kind = sites.content_type(path)
    if bounds is None:
        return HttpAnswer(200, content, kind, is_routed=False, headers=tuple(told))
    first, last = bounds
    told.append(("Content-Range", f"bytes {first}-{last}/{variant.size_bytes}"))
    return HttpAnswer(206, content[first : last + 1], kind, is_routed=False, headers=tuple(told))
