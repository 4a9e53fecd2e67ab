"""Feeds behind triggers, from the client's side: an action that is invoked at each turn of a trigger's life.

Source: OpenWhisk's feed protocol: always blocking, with `lifecycleEvent`, `triggerName` and `authKey`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from visp.cli import invoke
from visp.cli.exits import unable
from visp.client import documents
from visp.client.names import parse_entity

if TYPE_CHECKING:
    from visp.cli.pairs import Values
    from visp.cli.session import Session
    from visp.entity.names import FullyQualifiedName

Event = Literal["CREATE", "READ", "UPDATE", "DELETE"]


def feed_of(trigger: bytes) -> str | None:
    """The feed that a trigger's annotation names."""
    feed = documents.annotation(documents.value(trigger), "feed")
    return feed if isinstance(feed, str) and feed else None


def tell(
    session: Session, feed: str, event: Event, trigger: FullyQualifiedName, values: Values, *, as_json: bool
) -> None:
    """Invokes the feed's action and prints its activation; raises what the invocation raised."""
    lifecycle = {
        "lifecycleEvent": event,
        "triggerName": f"/{trigger.id}",
        "authKey": session.client.credentials.auth,
    }
    arguments = values | {key: msgspec.Raw(msgspec.json.encode(value)) for key, value in lifecycle.items()}
    with unable(f"configure feed '{feed}'"):
        invoke.run(session, parse_entity(feed), arguments, is_blocking=True, is_result=False, as_json=as_json)
