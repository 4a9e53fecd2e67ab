"""Which feeds there are: by name, and where each is. A module is imported when its first feed is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from visp import wording
from visp.feed.base import FeedRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from visp.feed.base import Feed

KINDS: Mapping[str, str] = {
    "alarms/alarm": "visp.feed.alarms:Alarm",
    "alarms/interval": "visp.feed.alarms:Interval",
    "alarms/once": "visp.feed.alarms:Once",
    "cloudant/changes": "visp.feed.changes:Changes",
    "cloudevents/receive": "visp.feed.hooks:CloudEvents",
    "email/inbox": "visp.feed.imap:Inbox",
    "files/watch": "visp.feed.files:Files",
    "github/webhook": "visp.feed.hooks:GitHubHook",
    "http/hook": "visp.feed.hooks:HttpHook",
    "mqtt/feed": "visp.feed.mqtt:Mqtt",
    "rss/entries": "visp.feed.rss:Rss",
    "slack/command": "visp.feed.hooks:SlackCommand",
    "slack/events": "visp.feed.hooks:SlackEvents",
    "messaging/kafkaFeed": "visp.feed.kafka:KafkaFeed",
    "messaging/messageHubFeed": "visp.feed.kafka:MessageHubFeed",
    "nats/stream": "visp.feed.nats:Stream",
    "nats/subject": "visp.feed.nats:Subject",
    "postgres/changes": "visp.feed.postgres:Changes",
    "postgres/notify": "visp.feed.postgres:Notify",
    "redis/stream": "visp.feed.redis:Stream",
    "s3/objects": "visp.feed.s3:Objects",
}


class Kinds:
    """`more` are an operator's own: names with `module:Class`; `options` are what some are made with, by name."""

    def __init__(
        self, more: Mapping[str, str] | None = None, options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self._places = {**KINDS, **(more or {})}
        self._options = options or {}
        self._feeds: dict[str, Feed] = {}

    def find(self, name: str) -> Feed:
        """Raises `FeedRefused` for one that there is not, or whose library is not installed."""
        feed = self._feeds.get(name)
        if feed is None:
            place = self._places.get(name)
            if place is None:
                raise FeedRefused(wording.no_such_feed(name), 404)
            module, _, made = place.partition(":")
            try:
                feed = getattr(importlib.import_module(module), made)(**self._options.get(name, {}))
            except ImportError as error:
                raise FeedRefused(wording.feed_not_installed(error.name or str(error))) from None
            self._feeds[name] = feed
        return feed
