"""Routes of feeds: what a feed's action asks for on its user's behalf, and what the user asks for directly.

An action of the feed protocol calls them with the key that it was given: so every call is its owner's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from visp import wording
from visp.api.errors import HttpAnswer, json_answer
from visp.entitlement.rights import check_owner
from visp.errors import BadRequest, Malformed, NotFound
from visp.feed.base import FeedRefused, SourceLost

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from visp.api.context import Call
    from visp.entity.names import FullyQualifiedName


class Asked(msgspec.Struct, frozen=True):
    """The body of CREATE and UPDATE."""

    parameters: dict[str, Any] = {}
    feed: str = ""


async def list_feeds(call: Call) -> HttpAnswer:
    """The feeds of a namespace's triggers, with how they stand."""
    check_owner(call.identity, call.namespace, call.namespace)
    return json_answer(await call.services.feeds.list(call.namespace))


async def create_feed(call: Call) -> HttpAnswer:
    """CREATE."""
    name = _owned(call)
    asked = await _asked(call)
    if not asked.feed:
        raise BadRequest(wording.NO_FEED_NAMED)
    return await _told(call, call.services.feeds.create(name, asked.feed, asked.parameters, await _key(call)))


async def get_feed(call: Call) -> HttpAnswer:
    """READ."""
    return await _told(call, call.services.feeds.read(_owned(call)))


async def change_feed(call: Call) -> HttpAnswer:
    """UPDATE; or with the query's `state` paused or resumed."""
    feeds, name, state = call.services.feeds, _owned(call), call.query.get("state")
    if state == "paused":
        return await _told(call, feeds.pause(name))
    if state == "live":
        return await _told(call, feeds.resume(name))
    if state is not None:
        raise BadRequest(wording.BAD_FEED_STATE)
    asked = await _asked(call)
    return await _told(call, feeds.update(name, asked.parameters, await _key(call)))


async def delete_feed(call: Call) -> HttpAnswer:
    """DELETE."""
    return await _told(call, call.services.feeds.delete(_owned(call)))


def _owned(call: Call) -> FullyQualifiedName:
    """Raises `Forbidden`."""
    name = call.name()
    check_owner(call.identity, name.namespace, name.id)
    return name


async def _asked(call: Call) -> Asked:
    body = await call.body()
    try:
        return msgspec.json.decode(body, type=Asked)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(wording.unexpected_json(str(error))) from None


async def _key(call: Call) -> str:
    """The caller's pair, with which the trigger will be fired."""
    key = await call.services.identities.key_of(call.identity.namespace_uuid)
    if key is None:
        raise BadRequest(wording.TRIGGER_NOT_AUTHENTICATED)
    return key


async def _told(call: Call, doing: Awaitable[dict[str, Any]]) -> HttpAnswer:
    try:
        return json_answer(await doing)
    except FeedRefused as error:
        return json_answer({"error": error.sentence, "code": call.transid}, error.status)
    except SourceLost as error:
        return json_answer({"error": str(error), "code": call.transid}, 502)
    except NotFound:
        return json_answer({"error": wording.TRIGGER_NOT_AUTHENTICATED, "code": call.transid}, 404)
