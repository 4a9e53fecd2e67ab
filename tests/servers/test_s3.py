"""`s3/objects` against a small S3 that checks signatures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.ports import free_port
from tests.servers.buckets import ACCESS, SECRET, Buckets
from tests.servers.watched import Crash, Near, Watched

from visp import wording
from visp.feed.base import FeedRefused, SourceEnded, SourceLost
from visp.feed.s3 import Objects


@pytest.fixture
async def buckets() -> AsyncIterator[Buckets]:
    made = Buckets(free_port())
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def asked(buckets: Buckets, **more: Any) -> dict[str, Any]:
    given = {"endpoint": f"http://localhost:{buckets.port}", "bucket": "photos", "prefix": "in/", "access_key": ACCESS,
             "secret_key": SECRET, "interval_s": 5}  # fmt: skip
    return Objects().parse({**given, **more}, 0)


def told(watch: Watched) -> list[tuple[str, str]]:
    return [(body["op"], body["key"]) for body in watch.bodies]


async def test_what_is_new_changed_and_gone_is_told(buckets: Buckets) -> None:
    buckets.objects = {"in/old": b"1", "in/gone": b"2", "in/same": b"3", "out/x": b"4"}
    asks = asked(buckets)
    watch = Watched(await Objects().check(asks, Near()))
    buckets.objects = {"in/old": b"11", "in/same": b"3", "in/new é&+ .jpg": b"5", "out/y": b"6"}
    await watch.run(Objects().open(asks, Near()), lambda watch: len(watch.events) == 3)
    assert told(watch) == [("created", "in/new é&+ .jpg"), ("changed", "in/old"), ("deleted", "in/gone")]
    assert watch.bodies[1] == {"op": "changed", "bucket": "photos", "key": "in/old", "size": 2,
                               "etag": "6512bd43d9caa6e02c990b0a82652dca"}  # fmt: skip
    buckets.objects["in/z"] = b""
    await watch.run(Objects().open(asks, Near()), lambda watch: len(watch.events) == 4)
    assert watch.told == 4


async def test_a_crash_between_fire_and_position_loses_nothing(buckets: Buckets) -> None:
    asks = asked(buckets)
    watch = Watched(await Objects().check(asks, Near()))
    buckets.objects = {"in/a": b"1"}
    watch.crashes_between = True
    with pytest.raises(Crash):
        await watch.run(Objects().open(asks, Near()), lambda watch: False)
    buckets.objects["in/b"] = b"2"
    await watch.run(Objects().open(asks, Near()), lambda watch: len(watch.events) == 2)
    assert told(watch) == [("created", "in/a"), ("created", "in/b")]
    assert watch.told == 3


async def test_a_server_that_goes_is_lost_and_goes_on_where_it_was(buckets: Buckets) -> None:
    asks = asked(buckets)
    watch = Watched(await Objects().check(asks, Near()))
    await buckets.stop()
    with pytest.raises(SourceLost, match="localhost could not be reached"):
        await watch.run(Objects().open(asks, Near()), lambda watch: False)
    buckets.objects = {"in/a": b"1"}
    await buckets.start()
    await watch.run(Objects().open(asks, Near()), lambda watch: len(watch.events) == 1)


async def test_who_may_not_is_refused_without_a_secret(buckets: Buckets) -> None:
    with pytest.raises(FeedRefused, match="it answered 403 SignatureDoesNotMatch") as refused:
        await Objects().check(asked(buckets, secret_key="wr0ng"), Near())
    assert "wr0ng" not in refused.value.sentence
    with pytest.raises(FeedRefused, match="may not be reached"):
        await Objects().check(asked(buckets, endpoint="http://169.254.169.254"), Near())


async def test_more_than_ten_thousand_objects_are_refused(buckets: Buckets) -> None:
    asks = asked(buckets)
    position = await Objects().check(asks, Near())
    buckets.page = 1000
    buckets.objects = {f"in/{number}": b"" for number in range(10_001)}
    with pytest.raises(FeedRefused, match=wording.too_many_objects(10_000)):
        await Objects().check(asks, Near())
    with pytest.raises(SourceEnded, match="more than 10000"):
        await Watched(position).run(Objects().open(asks, Near()), lambda watch: False)
    del buckets.objects["in/0"]
    watch = Watched(position)
    await watch.run(Objects().open(asks, Near()), lambda watch: len(watch.events) == 10_000)


async def test_a_document_with_entities_is_not_read(buckets: Buckets) -> None:
    buckets.extra = '<!DOCTYPE a [<!ENTITY b "c">]>'
    with pytest.raises(FeedRefused, match="cannot be reached, or broke off"):
        await Objects().check(asked(buckets), Near())
