"""Buckets of S3 and what speaks like it: `s3/objects`, by listing again and again what is under a prefix.

The position is what was seen: a mark of each object's content by its key. So more than `OBJECTS_MOST` objects under a
prefix are refused; what came and went between two lists is not told.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlsplit

from visp import wording
from visp.feed import web
from visp.feed.base import Batch, Event, FeedRefused, Json, Reach, SourceEnded, Watch
from visp.feed.batching import batches, event
from visp.feed.connecting import reached
from visp.feed.listing import OBJECTS_MOST, Difference, Thing, differences, packed, read_page, unpacked
from visp.feed.parameters import Field, Own, text, url, whole
from visp.feed.signing import query_of, signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import aiohttp

NAME = "s3/objects"
ENDPOINT = "https://s3.amazonaws.com"
PAGE = 1000
PAGE_BYTES = 8 * 1024 * 1024
PAGE_S = 60.0
"""For an answer as a whole."""


class Objects(Own):
    """Without keys a bucket is read as anybody may."""

    name: ClassVar[str] = NAME
    secrets: ClassVar[frozenset[str]] = frozenset({"secret_key"})
    fields: ClassVar[tuple[Field, ...]] = (
        Field("endpoint", url("https", "http"), default=ENDPOINT, fixed=True),
        Field("bucket", text, required=True, fixed=True),
        Field("prefix", text, default="", fixed=True),
        Field("region", text, default="us-east-1"),
        Field("access_key", text),
        Field("secret_key", text),
        Field("interval_s", whole(5, 86_400), default=30),
    )

    def agree(self, kept: Mapping[str, Json]) -> None:
        for one, other in (("access_key", "secret_key"), ("secret_key", "access_key")):
            if one in kept and other not in kept:
                raise FeedRefused(wording.feed_parameter_missing(other))
        if not 0 < len(kept["bucket"]) <= 255 or "/" in kept["bucket"]:
            raise FeedRefused(wording.feed_parameter_bad("bucket", wording.FEED_BUCKET))
        if "@" in urlsplit(kept["endpoint"]).netloc:
            raise FeedRefused(wording.feed_parameter_bad("endpoint", wording.feed_url(("https", "http"))))

    async def check(self, parameters: Mapping[str, Json], reach: Reach) -> Json:
        async with connected(parameters, reach, FeedRefused) as bucket:
            found = await bucket.list(time.time())
        if found is None:
            raise FeedRefused(wording.too_many_objects(OBJECTS_MOST))
        return packed({key: thing.mark() for key, thing in found.items()})

    def source(self, parameters: Mapping[str, Json], reach: Reach) -> ObjectsSource:
        return ObjectsSource(parameters, reach)


class ObjectsSource:
    def __init__(self, parameters: Mapping[str, Json], reach: Reach) -> None:
        self._parameters = parameters
        self._reach = reach

    async def run(self, watch: Watch, position: Json) -> None:
        seen = None if position is None else unpacked(position)
        async with connected(self._parameters, self._reach) as bucket:
            while True:
                now = await bucket.list(watch.clock.now_ms() / 1000)
                if now is None:
                    raise SourceEnded(wording.too_many_objects(OBJECTS_MOST))
                if seen is None:
                    seen = {key: thing.mark() for key, thing in now.items()}
                    await watch.fire(Batch((), packed(seen)))
                changes = list(differences(seen, now))
                done = 0
                made = ((self._event(one), index) for index, one in enumerate(changes, 1))
                for events, upto in batches(made):
                    for one in changes[done:upto]:
                        if one.thing is None:
                            del seen[one.key]
                        else:
                            seen[one.key] = one.mark
                    done = upto
                    await watch.fire(Batch(events, packed(seen)))
                interval_s: int = self._parameters["interval_s"]
                watch.live(lag=0, next_ms=watch.clock.now_ms() + interval_s * 1000)
                await watch.clock.sleep(interval_s)

    def _event(self, one: Difference) -> Event | None:
        body: dict[str, Json] = {"op": one.op, "bucket": self._parameters["bucket"], "key": one.key}
        if one.thing is not None:
            body |= {"size": one.thing.size, "etag": one.thing.etag}
        return event(f"{one.op}-{sha256(one.key.encode()).hexdigest()}-{one.mark}", body, NAME)


class Bucket:
    """One bucket's lists."""

    def __init__(self, session: aiohttp.ClientSession, reach: Reach, parameters: Mapping[str, Json]) -> None:
        self._session = session
        self._reach = reach
        self._parameters = parameters
        self._at = urlsplit(parameters["endpoint"])

    async def list(self, now_s: float) -> dict[str, Thing] | None:
        """What is under the prefix; None: more than may be."""
        found: dict[str, Thing] = {}
        more: str | None = None
        while True:
            query = {"list-type": "2", "max-keys": str(PAGE), "prefix": self._parameters["prefix"]}
            if more is not None:
                query["continuation-token"] = more
            page = read_page(await self._get(query_of(query), now_s))
            if len(found) + len(page.things) > OBJECTS_MOST:
                return None
            found |= page.things
            if page.more is None or not page.things:
                return found
            more = page.more

    async def _get(self, query: str, now_s: float) -> bytes:
        path = f"{self._at.path.rstrip('/')}/{quote(self._parameters['bucket'], safe='')}"
        headers: dict[str, str] = {}
        if "access_key" in self._parameters:
            headers = signed(
                self._parameters["access_key"],
                self._parameters["secret_key"],
                self._parameters["region"],
                time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s)),
                self._at.netloc,
                path,
                query,
            )
        target = f"{self._at.scheme}://{self._at.netloc}{path}?{query}"
        from yarl import URL

        async with asyncio.timeout(PAGE_S):
            url = URL(target, encoded=True)
            async with web.answer(self._session, self._reach, "GET", url, headers=headers) as answer:
                document = await web.body_of(answer, PAGE_BYTES)
        if answer.status != 200:
            raise ConnectionError(wording.answered(answer.status, code_of(document)))
        return document


def code_of(document: bytes) -> str:
    """S3's word for what is wrong: `AccessDenied`."""
    _, begin, rest = document.partition(b"<Code>")
    code, end, _ = rest.partition(b"</Code>")
    return code.decode("ascii", "replace") if begin and end and len(code) <= 64 and code.isalnum() else ""


@asynccontextmanager
async def connected(
    parameters: Mapping[str, Json], reach: Reach, refused: type[FeedRefused] | None = None
) -> AsyncIterator[Bucket]:
    for name in ("aiohttp", "defusedxml.ElementTree"):
        await asyncio.to_thread(importlib.import_module, name)
    async with (
        reached("S3", parameters["endpoint"], [parameters.get("secret_key")], refused),
        web.session(reach) as session,
    ):
        yield Bucket(session, reach, parameters)
