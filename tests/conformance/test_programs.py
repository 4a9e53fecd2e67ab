"""What every action may rely on, whatever its language and whatever wall it stands behind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.conformance.conftest import Place
from tests.conformance.kinds import APPLICATION, CHANCE, DEVELOPER, SUCCESS, Ending, tree, zipped

VALUES = [
    None,
    True,
    -7,
    2**53 - 1,
    0.5,
    "",
    'a "quoted" \\ / word\n\tand a line, é ❄ 🦊 \u2028',
    [],
    [[1, [None]], {"a": {"b": ["c"]}}],
    {"ключ": "значение"},
]
NAMES = [
    "NAMESPACE",
    "ACTION_NAME",
    "ACTION_VERSION",
    "ACTIVATION_ID",
    "TRANSACTION_ID",
    "DEADLINE",
    "API_KEY",
    "API_HOST",
]
MIB = 1 << 20
ENVELOPE_BYTES = 100
"""What stands around a text, in an argument or in a result."""


def lines(record: Any, stream: str = "") -> list[str]:
    """The text of a record's log lines, without their time."""
    return [line.partition(" ")[2].partition(": ")[2] for line in record["logs"] if f" {stream}" in line]


def assert_ends(record: Any, ending: Ending) -> None:
    response, logged = record["response"], "\n".join(record["logs"])
    assert response["status"] == ending.status, (response, logged)
    if ending.result is not None:
        assert response["result"] == ending.result
    assert ending.said in json.dumps(response["result"], ensure_ascii=False).replace('\\"', '"')
    assert ending.logged in logged


def ends(record: Any, ending: Ending) -> bool:
    try:
        assert_ends(record, ending)
    except AssertionError:
        return False
    return True


def test_hello(place: Place) -> None:
    assert place.ask({"do": "hello", "name": "Zoë"})["response"]["result"] == {"greeting": "Hello, Zoë!"}


def test_a_container_that_is_warm_goes_on(place: Place) -> None:
    place.action(place.kind.code)
    for name in ("one", "two"):
        assert place.run({"do": "hello", "name": name}) == {"greeting": f"Hello, {name}!"}
    if place.kind.counts:
        counted = place.run({"do": "count"})["count"]
        assert place.run({"do": "count"})["count"] == counted + 1


def test_what_is_by_chance_is_each_containers_own(place: Place) -> None:
    if place.kind.name.partition(":")[0] not in CHANCE or place.kind.is_by_image:
        pytest.skip("its containers are started one by one")
    found = [place.ask({"do": "chance"})["response"]["result"] for _ in range(4)]
    for number in range(2):
        assert len({result["chance"][number] for result in found}) == len(found), found


def test_unicode_in_argument_result_and_logs(place: Place) -> None:
    record = place.ask({"do": "unicode", "text": "❄"})
    assert record["response"]["result"] == {"winter": "❄ ☃ ❄"}
    assert lines(record, "stdout") == ["❄"]


def test_values_come_back_as_they_were(place: Place) -> None:
    place.action(place.kind.code)
    for value in VALUES:
        assert place.run({"do": "same", "value": value}) == {"value": value}, value


def test_array_goes_in_and_comes_out(place: Place) -> None:
    place.action(place.kind.code_for_arrays)
    if place.kind.arrays is not None:
        place.invoke({})  # it is built by then
    head = {"kind": "python:3.11", "code": "def main(args): return args['list']"}
    assert place.api.request("PUT", "actions/head?overwrite=true", {"exec": head}).status == 200
    body = {"exec": {"kind": "sequence", "components": ["/_/head", f"/_/{place.name}"]}}
    assert place.api.request("PUT", "actions/arrays?overwrite=true", body).status == 200
    assert place.api.run("arrays", {"list": [1, "b", {"c": None}]}) == [{"c": None}, "b", 1]


def test_environment_has_what_openwhisk_promises(place: Place) -> None:
    names = [*(f"__OW_{name}" for name in NAMES), "SECRET", "LIST"]
    hidden = ["VISP_COPIED"]
    parameters = [
        {"key": "SECRET", "value": "hidden", "init": True},
        {"key": "LIST", "value": [1, "b"], "init": True},
        {"key": "shown", "value": 1},
    ]
    annotations = [{"key": "provide-api-key", "value": True}]
    record = place.ask({"do": "env", "names": names + hidden}, parameters=parameters, annotations=annotations)
    result = record["response"]["result"]
    env = result["env"]
    assert result["keys"] == ["do", "names", "shown"]
    assert {name for name, text in env.items() if not text} == {*hidden}
    assert (env["SECRET"], json.loads(env["LIST"])) == ("hidden", [1, "b"])
    assert env["__OW_ACTION_NAME"] == f"/guest/{place.name}"
    assert (env["__OW_NAMESPACE"], env["__OW_ACTION_VERSION"]) == ("guest", record["version"])
    assert env["__OW_ACTIVATION_ID"] == record["activationId"]
    assert int(env["__OW_DEADLINE"]) > record["start"]
    again = place.invoke({"do": "env", "names": ["__OW_ACTIVATION_ID"]})
    assert again["response"]["result"]["env"] == {"__OW_ACTIVATION_ID": again["activationId"]}


def test_error_that_is_returned_is_the_applications(place: Place) -> None:
    assert_ends(place.ask({"do": "error"}), Ending(APPLICATION, {"error": {"code": 7}}))


def test_error_that_is_thrown(place: Place) -> None:
    assert_ends(place.ask({"do": "throw"}), place.kind.thrown)
    assert place.run({"do": "hello", "name": "again"}) == {"greeting": "Hello, again!"}


def test_result_of_another_type(place: Place) -> None:
    if place.kind.number is not None:
        assert_ends(place.ask({"do": "number"}), place.kind.number)
    assert_ends(place.ask({"do": "nothing"}), place.kind.nothing)


def test_logs_of_both_streams_stand_in_their_order(place: Place) -> None:
    record = place.ask({"do": "logs"})
    assert record["response"]["result"] == {}
    assert (lines(record, "stdout"), lines(record, "stderr")) == (["out 1", "out 2"], ["err 1", "err 2"])
    assert not place.kind.in_order or lines(record)[0] == "out 1", "what was written first stands first"


def test_large_argument_and_result(place: Place) -> None:
    place.action(place.kind.code)
    size = MIB - ENVELOPE_BYTES
    assert place.run({"do": "length", "text": "y" * size}) == {"length": size}
    assert place.run({"do": "long", "bytes": size}) == {"text": "x" * size}
    record = place.invoke({"do": "long", "bytes": MIB + 1})
    assert_ends(record, Ending(APPLICATION, said="The action produced a response that exceeded the allowed length"))


def test_another_main(place: Place) -> None:
    if place.kind.other is None:
        pytest.skip("its programs have no functions")
    place.action(place.kind.code, place.kind.other)
    assert place.run({}) == {"by": "other"}


def test_main_that_is_not_there(place: Place) -> None:
    if place.kind.absent is None:
        pytest.skip("its programs have no functions")
    main, ending = place.kind.absent
    place.action(place.kind.code, main)
    assert_ends(place.invoke({}), ending)


def test_archive_runs_where_it_lies(place: Place) -> None:
    if place.kind.package is None:
        pytest.skip("its programs see no files")
    place.action(zipped(tree(place.kind.folder / "package")), place.kind.package_main)
    assert place.run({}) == place.kind.package


def test_real_library(place: Place) -> None:
    library = place.kind.library
    if library is None:
        pytest.skip("its programs have no libraries of their own")
    place.action(zipped(library.files()), "Library" if place.kind.main else None)
    assert place.run({"text": library.text}) == {"made": library.made}


def test_code_that_cannot_be_read(place: Place) -> None:
    code, ending = place.kind.broken
    place.action(code)
    assert_ends(place.invoke({}), ending)


def test_code_that_is_empty(place: Place) -> None:
    if place.kind.empty is None:
        pytest.skip("no code is another mistake there")
    place.action("")
    assert_ends(place.invoke({}), place.kind.empty)


def test_program_that_is_killed(place: Place) -> None:
    if place.kind.died is None:
        pytest.skip("its programs cannot")
    record = place.ask({"do": "die"})
    assert_ends(record, Ending(DEVELOPER, {"error": place.kind.died}))
    assert place.run({"do": "hello", "name": "again"}) == {"greeting": "Hello, again!"}


def test_time_that_runs_out(place: Place) -> None:
    limit_ms = place.kind.timeout_ms
    record = place.ask({"do": "sleep"}, limits={"timeout": limit_ms})
    assert_ends(record, Ending(DEVELOPER, said=f"The action exceeded its time limits of {limit_ms} milliseconds"))


def test_memory_that_runs_out(place: Place) -> None:
    record = place.ask({"do": "eat"})
    assert any(ends(record, ending) for ending in place.kind.eaten), (record["response"], record["logs"])
    assert record["response"]["status"] != SUCCESS
    assert place.run({"do": "hello", "name": "again"}) == {"greeting": "Hello, again!"}
