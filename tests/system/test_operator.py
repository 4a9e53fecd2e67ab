"""Routes of operators: what is in flight, and a server that is taken out of service."""

from __future__ import annotations

import pytest
from tests.system.conftest import Api
from tests.system.places import TRUSTING, Place, opened
from tests.system.test_retries import until

SLOW = {"exec": {"kind": "python:3.11", "code": "import time\ndef main(p):\n    time.sleep(2)\n    return {}\n"}}


def test_what_is_in_flight_and_a_server_that_is_disabled() -> None:
    with opened(Place) as place:
        url = place.start(*TRUSTING, operator__user="op", operator__password="secret").url
        api, root = Api(url), Api(url, None)
        assert root.get("/activation").json == []
        api.request("PUT", "actions/slow", SLOW)
        id = api.request("POST", "actions/slow", {}).json["activationId"]
        assert root.get("/activation").json == [id]
        assert root.get("/activation/count").json == 1
        for auth in (None, "op:wrong", "who:secret", ":"):
            refused = Api(url, auth).request("POST", "/disable")
            assert (refused.status, refused.body) == (401, b"username or password are wrong.")
        assert root.get("/ready").status == 200
        done = Api(url, "op:secret").request("POST", "/disable")
        assert (done.status, done.body) == (200, b"controller is disabled")
        assert (root.get("/ready").status, root.get("/ready").body) == (503, b"disabled by its operator")
        assert root.get("/ping").status == 200
        until(lambda: api.get(f"activations/{id}").status == 200)


@pytest.mark.parametrize("auth", [":", None])
def test_nobody_disables_a_server_that_has_no_operator(auth: str | None) -> None:
    with opened(Place) as place:
        url = place.start(*TRUSTING).url
        assert Api(url, auth).request("POST", "/disable").status == 401
        assert Api(url, None).get("/ready").status == 200
