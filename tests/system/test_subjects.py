"""An operator's care for users, beside a server that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Api
from tests.system.places import Place, opened
from tests.system.test_retries import FAKE, OK, put_action, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


def admin(place: Place, *words: str) -> tuple[int, str, str]:
    done = place.admin(*words)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_runs_learns_of_it_within_a_moment(place: Place, workers: int) -> None:
    url = place.start(*FAKE, workers=workers).url
    status, auth, _ = admin(place, "user", "create", "alice")
    assert status == 0
    assert until(lambda: Api(url, auth).get("/api/v1/namespaces").json == ["alice"])
    put_action(Api(url, auth), "hello", OK)
    assert Api(url, auth).request("POST", "actions/hello?blocking=true", {}).status == 200

    assert admin(place, "user", "whois", auth) == (0, "subject: alice\nnamespace: alice", "")
    assert admin(place, "user", "get", "alice") == (0, auth, "")
    assert admin(place, "user", "list", "alice", "-k") == (0, auth, "")
    assert admin(place, "user", "block", "alice", "nobody")[0] == 1
    for _ in range(4):  # each connection comes to any shard
        until(lambda: Api(url, auth).get("actions").status == 401)
    assert admin(place, "user", "unblock", "alice") == (0, '"alice" unblocked successfully', "")
    for _ in range(4):
        until(lambda: Api(url, auth).get("actions").status == 200)

    _, new, _ = admin(place, "user", "create", "alice", "-r")
    assert new.partition(":")[0] == auth.partition(":")[0]
    for _ in range(4):
        until(lambda: Api(url, auth).get("actions").status == 401)
    assert Api(url, new).get("actions").json[0]["name"] == "hello"

    said = admin(place, "limits", "set", "alice", "-l", "invocationsPerMinute", "0", "-l", "maxPayloadSize", "1 KB")
    assert said == (0, 'Limits successfully set for "alice"', "")
    until(lambda: Api(url, new).get("limits").json["invocationsPerMinute"] == 0)
    until(lambda: Api(url, new).request("POST", "actions/hello", {}).status == 429)
    assert admin(place, "limits", "get", "alice") == (0, "invocationsPerMinute = 0\nmaxPayloadSize = 1 KB", "")
    assert admin(place, "limits", "delete", "alice") == (0, "Limits deleted", "")
    until(lambda: Api(url, new).request("POST", "actions/hello", {}).status == 202)

    assert admin(place, "user", "delete", "alice") == (0, "Subject deleted", "")
    until(lambda: Api(url, new).get("actions").status == 401)


def test_it_needs_no_server_and_says_what_is_wrong(place: Place) -> None:
    status, auth, _ = admin(place, "user", "create", "whisk.admin", "-ns", "whisk.system")
    assert status == 0
    api = Api(place.start(*FAKE).url, auth)
    assert api.get("/api/v1/namespaces").json == ["whisk.system"]
    for words, says in (
        (("user", "create", "bob"), "Subject name must be at least 5 characters"),
        (("user", "create", "alice", "-u", "x:y"), "authorization id is not a valid UUID"),
        (("user", "get", "nobody"), "Failed to get subject"),
        (("user", "whois", auth[:-1] + "_"), "Subject id is not recognized"),
        (("limits", "set", "alice", "-l", "nosuch", "1"), "nosuch"),
        (("limits", "delete", "alice"), "Limits not found for 'alice'"),
    ):
        status, _, said = admin(place, *words)
        assert (status, says in said) == (1, True), said
    assert admin(place, "user", "create", "alice", "-g")[0] == 0
    assert admin(place, "user", "get", "alice")[0] == 1
    assert admin(place, "limits", "get", "alice") == (0, "No limits found, default system limits apply", "")
    assert admin(place, "user", "get")[0] == 2
