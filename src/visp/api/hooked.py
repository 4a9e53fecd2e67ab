"""The route of feeds' own addresses: `/hooks/<id>`, without a key; what a request needs its feed says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.api.context import collected
from visp.api.errors import HttpAnswer, error_answer
from visp.feed.base import FeedRefused, Request

if TYPE_CHECKING:
    from starlette.requests import Request as Asked

    from visp.api.context import Services

PREFIX = "/hooks/"


async def answer(request: Asked, services: Services, id: str) -> HttpAnswer:
    """What a request is sent; it is fired before. `id` is its transaction."""
    hooked = services.hooked
    try:
        entry, owner = await hooked.find(request.scope["path"][len(PREFIX) :])
        services.invoke.check_size(owner, int(request.headers.get("content-length", "0")))
        body = await collected(request, owner.limits.payload_bytes)
        told = Request(
            method=request.method,
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw},
            query=request.scope["query_string"].decode("latin-1"),
            body=body,
            rate=owner.limits.fires_per_minute,
        )
        received = await hooked.receive(entry, owner, told, id)
    except FeedRefused as error:
        headers = (("Allow", "POST"),) if error.status == 405 else ()
        return error_answer(error.status, error.sentence, id, is_routed=False, headers=headers)
    content_type = received.content_type if received.answer else None
    return HttpAnswer(200, received.answer, content_type, is_routed=False, headers=received.headers)


def url_of(base: str, id: str) -> str:
    """Where a feed of this id is told."""
    return f"{base}{PREFIX}{id}"
