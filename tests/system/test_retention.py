"""For how long records are kept: the platform's days, and a namespace's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.system.conftest import Api
from tests.system.places import Place, opened
from tests.system.test_retries import FAKE, OK, put_action, until
from tests.system.test_subjects import admin

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENT = "0.00001"
"""Days: a second, nearly."""


@pytest.fixture
def place() -> Iterator[Place]:
    with opened(Place) as place:
        yield place


def run(api: Api) -> str:
    """The path of the record that an invocation leaves."""
    id = api.request("POST", "actions/hello?blocking=true", {}).json["activationId"]
    return f"activations/{id}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_namespace_keeps_its_records_for_as_long_as_it_was_told(place: Place, workers: int) -> None:
    server = place.start(*FAKE, workers=workers, retention__days=MOMENT, retention__every_s=0.1)
    _, auth, _ = admin(place, "user", "create", "alice")
    guest, alice = Api(server.url), Api(server.url, auth)
    until(lambda: alice.get("actions").status == 200)
    assert "retentionDays" not in alice.get("limits").json
    said = admin(place, "limits", "set", "alice", "-l", "retentionDays", "30")
    assert said == (0, 'Limits successfully set for "alice"', "")
    assert admin(place, "limits", "get", "alice") == (0, "retentionDays = 30", "")
    until(lambda: alice.get("limits").json.get("retentionDays") == 30)

    for api in (alice, guest):
        put_action(api, "hello", OK)
    kept, gone = [run(alice) for _ in range(4)], [run(guest) for _ in range(4)]
    for path in gone:  # later ones, by the platform's days
        until(lambda path=path: guest.get(path).status == 404)  # type: ignore[misc]
    assert [alice.get(path).status for path in kept] == [200] * 4
    assert alice.get("activations?count=true").json == {"activations": 4}

    assert admin(place, "limits", "set", "alice", "-l", "retentionDays", MOMENT)[0] == 0
    for path in kept:
        until(lambda path=path: alice.get(path).status == 404)  # type: ignore[misc]
    assert alice.get("activations?count=true").json == {"activations": 0}

    status, _, said_why = admin(place, "limits", "set", "alice", "-l", "retentionDays", "-1")
    assert (status, "Expected `float` >= 0.0 - at `$.retentionDays`" in said_why) == (1, True)
