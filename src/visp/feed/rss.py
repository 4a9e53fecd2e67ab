"""`rss/entries`: a trigger for each new entry of a news feed (RSS 0.9x, 1.0, 2.0, Atom).

The feed is asked from time to time, with what it said of its version. The position is `{"etag", "modified", "seen"}`,
the last being keys of entries; what is there when the trigger is made is not new.
"""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urljoin

import msgspec

from visp import wording
from visp.feed import given as asked
from visp.feed import web
from visp.feed.base import Event, FeedRefused, Json, SourceLost
from visp.feed.batching import Gathering, key_of
from visp.feed.conditions import filter_of, parse_filter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

    import aiohttp

    from visp.feed.base import Reach, Watch

SCHEMES = ("https", "http")
INTERVAL_S, INTERVAL_LEAST_S, INTERVAL_MOST_S = 300, 10, 86_400
FEED_BYTES = 8 * 1024 * 1024
ENTRIES_MOST = 1000
"""Of one answer, from its beginning."""
SEEN_MOST = 2000
REDIRECTS_MOST = 5
TEXT_LENGTH = 64 * 1024
CHECK_S = 45.0


class Rss:
    name: ClassVar[str] = "rss/entries"
    secrets: ClassVar[frozenset[str]] = frozenset()
    disables_when_throttled: ClassVar[bool] = False

    def parse(self, given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        return {
            "url": asked.url(given, "url", SCHEMES),
            "interval_s": asked.integer(given, "interval_s", INTERVAL_S, INTERVAL_LEAST_S, INTERVAL_MOST_S),
        } | parse_filter(given)

    def changed(self, kept: Mapping[str, Json], given: Mapping[str, Json], now_ms: int) -> dict[str, Json]:
        asked_for = {name: given[name] for name in ("interval_s", "filter") if name in given}
        if not asked_for:
            raise FeedRefused(wording.NOTHING_UPDATABLE)
        return self.parse({**kept, **asked_for}, now_ms)

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        try:
            async with asyncio.timeout(CHECK_S), web.session(reach) as client:
                answered = await _ask(client, reach, parameters["url"], {})
        except (SourceLost, TimeoutError) as error:
            raise FeedRefused(str(error) or wording.feed_no_answer("the feed"), 502) from None
        return _position(answered, {}, [_key(entry) for entry in answered.entries])

    def created(self, id: str, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return {"status": "success"}

    def shown(self, parameters: Mapping[str, Json]) -> dict[str, Json]:
        return dict(parameters)

    def open(self, parameters: Mapping[str, Json], reach: Reach) -> RssSource:
        return RssSource(parameters, reach)


class RssSource:
    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach
        self._holds = filter_of(parameters)

    async def run(self, watch: Watch, position: Json) -> None:
        kept: dict[str, Json] = dict(position or {"seen": []})
        async with web.session(self._reach) as client:
            while True:
                kept = await self._look(client, watch, kept)
                wait_s = self._parameters["interval_s"]
                watch.live(lag=0, next_ms=watch.clock.now_ms() + wait_s * 1000)
                await watch.clock.sleep(wait_s)

    async def _look(self, client: aiohttp.ClientSession, watch: Watch, kept: dict[str, Json]) -> dict[str, Json]:
        answered = await _ask(client, self._reach, self._parameters["url"], kept)
        if answered.is_same:
            return kept
        seen: dict[str, None] = dict.fromkeys(kept["seen"])
        gathering = Gathering(watch, kept)
        for entry in reversed(answered.entries):  # feeds begin with what is newest
            key = _key(entry)
            if key not in seen:
                seen[key] = None
                if self._holds(entry):
                    await gathering.add(Event(key, msgspec.json.encode(entry)), {**kept, "seen": list(seen)})
        present = [_key(entry) for entry in answered.entries]
        after = _position(answered, kept, [*(key for key in seen if key not in set(present)), *reversed(present)])
        await gathering.flush(after)
        return after


# ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Answered(msgspec.Struct):
    entries: list[dict[str, Json]] = []
    is_same: bool = False
    etag: str = ""
    modified: str = ""


async def _ask(client: aiohttp.ClientSession, reach: Reach, url: str, kept: Mapping[str, Json]) -> _Answered:
    headers = {"Accept": "application/atom+xml, application/rss+xml, application/xml;q=0.9, */*;q=0.5"}
    if kept.get("etag"):
        headers["If-None-Match"] = kept["etag"]
    if kept.get("modified"):
        headers["If-Modified-Since"] = kept["modified"]
    for _ in range(REDIRECTS_MOST + 1):
        async with web.answer(client, reach, "GET", url, headers=headers) as answer:
            if answer.status == 304:
                return _Answered(is_same=True)
            if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                url = urljoin(url, answer.headers["Location"])
                parts = asked.split_url(url)
                if parts is None or parts.scheme not in SCHEMES:
                    raise SourceLost(wording.RSS_REDIRECTED)
                continue
            if answer.status != 200:
                raise SourceLost(wording.rss_answered(answer.status))
            body = await web.body_of(answer, FEED_BYTES)
            found = [answer.headers.get(name, "")[:1000] for name in ("ETag", "Last-Modified")]
        return _Answered(await asyncio.to_thread(entries_of, body), etag=found[0], modified=found[1])
    raise SourceLost(wording.RSS_REDIRECTED)


def _position(answered: _Answered, kept: Mapping[str, Json], seen: list[str]) -> dict[str, Json]:
    return {"etag": answered.etag, "modified": answered.modified, "seen": list(dict.fromkeys(seen))[-SEEN_MOST:]}


def _key(entry: Mapping[str, Json]) -> str:
    return key_of("entry", entry["id"])[:32]


# ── reading: pure ───────────────────────────────────────────────────────────────────────────────────────────────


def entries_of(body: bytes) -> list[dict[str, Json]]:
    """`id, title, link, published, summary` of each, in the feed's order; raises `SourceLost`.

    An entry's id is its own, else its link, else its title; times are in ISO 8601 where they can be read.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(body)
    except (ParseError, DefusedXmlException, ValueError, LookupError):
        raise SourceLost(wording.RSS_UNREADABLE) from None
    if _name(root) not in ("rss", "RDF", "feed"):
        raise SourceLost(wording.RSS_UNREADABLE)
    inner = [root, *(child for child in root if _name(child) == "channel")]
    elements = [child for parent in inner for child in parent if _name(child) in ("item", "entry")]
    found = [_entry(element) for element in elements[:ENTRIES_MOST]]
    return [entry for entry in found if entry["id"]]


def _entry(element: Element) -> dict[str, Json]:
    texts: dict[str, str] = {}
    link = ""
    for child in element:
        name = _name(child)
        if name == "link" and child.get("href") is not None:
            if child.get("rel", "alternate") == "alternate" and not link:
                link = child.get("href", "").strip()
        else:
            texts.setdefault(name, "".join(child.itertext()).strip()[:TEXT_LENGTH])
    link = link or texts.get("link", "")
    title = texts.get("title", "")
    published = next((texts[name] for name in ("published", "pubDate", "date", "updated") if texts.get(name)), "")
    return {
        "id": texts.get("id") or texts.get("guid") or link or title,
        "title": title,
        "link": link,
        "published": _time(published),
        "summary": next((texts[name] for name in ("summary", "description", "content") if texts.get(name)), ""),
    }


def _name(element: Any) -> str:
    """Without its namespace."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _time(text: str) -> str:
    try:
        return parsedate_to_datetime(text).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return text[:100]
