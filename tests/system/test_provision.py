"""Containers that an action asks to have ready: they are up before anyone invokes it, and stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.system.conftest import Answer, Api
from tests.system.places import Place, opened
from tests.system.test_retries import until

CODE = """
import os, time
began = time.time()
def main(p):
    if p.get("dies"):
        os._exit(1)
    return {"began": began, "secret": os.environ.get("SECRET")}
"""
PROVISIONED = "provision"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


@pytest.fixture(scope="module")
def api(place: Place) -> Api:
    return Api(place.start(pool__memory_mb=8192).url)


def put(api: Api, name: str, count: Any, code: str = CODE, **fields: Any) -> Answer:
    body = {
        "exec": {"kind": "python:3.11", "code": code},
        "annotations": [{"key": PROVISIONED, "value": count}],
        **fields,
    }
    return api.request("PUT", f"actions/{name}?overwrite=true", body)


def invoke(api: Api, name: str, **given: Any) -> Any:
    return api.request("POST", f"actions/{name}?blocking=true", given).json


def is_cold(record: Any) -> bool:
    return any(annotation["key"] == "initTime" for annotation in record["annotations"])


def is_warm(api: Api, name: str) -> bool:
    """Once: a second look would be warm by the first."""
    return not is_cold(invoke(api, name))


def ready(api: Api) -> int:
    """Containers that are initialised and idle."""
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in api.get("/metrics").body.decode().splitlines()
        if line.startswith("visp_containers{") and ('state="ready"' in line or 'state="paused"' in line)
    )


def test_first_invocation_is_warm(api: Api) -> None:
    before = ready(api)
    put(api, "kept", 2, parameters=[{"key": "SECRET", "value": "s", "init": True}])
    until(lambda: ready(api) == before + 2)
    record = invoke(api, "kept")
    assert not is_cold(record)
    assert record["response"]["result"]["secret"] == "s"
    assert "SECRET" not in record["response"]["result"]


def test_a_new_revision_has_containers_of_its_own(api: Api) -> None:
    put(api, "changed", 1, "def main(p): return {'n': 1}")
    until(lambda: is_warm(api, "changed"))
    before = ready(api)
    put(api, "changed", 1, "def main(p): return {'n': 2}")
    until(lambda: ready(api) == before)
    record = invoke(api, "changed")
    assert (record["response"]["result"], is_cold(record)) == ({"n": 2}, False)


def test_one_that_ends_is_replaced(api: Api) -> None:
    put(api, "mortal", 1)
    until(lambda: is_warm(api, "mortal"))
    before = ready(api)
    assert not is_cold(invoke(api, "mortal", dies=True))
    until(lambda: ready(api) == before)
    assert not is_cold(invoke(api, "mortal"))


def test_init_that_fails_leaves_no_record_and_breaks_nothing(api: Api) -> None:
    put(api, "broken", 1, "raise ValueError('no')")
    put(api, "fine", 1)
    until(lambda: is_warm(api, "fine"))
    assert api.get("activations?name=broken").json == []
    assert invoke(api, "broken")["response"]["status"] == "action developer error"


@pytest.mark.parametrize("count", [-1, 101, "2", 1.5, True, None, [1]])
def test_what_is_no_number_of_containers_is_refused(api: Api, count: Any) -> None:
    answer = put(api, "wrong", count)
    assert answer.status == 400
    assert answer.json["error"] == "The annotation 'provision' must be a number of containers from 0 to 100."


def test_they_are_there_again_after_a_crash(place: Place, api: Api) -> None:
    put(api, "lasting", 1)
    until(lambda: is_warm(api, "lasting"))
    for name in ("kept", "changed", "mortal", "broken", "fine"):
        api.request("DELETE", f"actions/{name}")
    place.close()
    again = Api(place.start().url)
    until(lambda: ready(again) == 1)
    assert is_warm(again, "lasting")
    put(again, "lasting", 0)
