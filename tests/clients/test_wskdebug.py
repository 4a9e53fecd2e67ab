"""`@openwhisk/wskdebug`: an agent takes the place of an action, who debugs is asked instead, and all is put back."""

from __future__ import annotations

import pytest
from tests.clients.conftest import can_run, checks, outcomes, passed

from visp.client import running

pytestmark = can_run


@pytest.fixture(scope="module")
def found(equipped: running.Server) -> dict[str, str]:
    return outcomes(equipped, "wskdebug.js")


@pytest.mark.parametrize("check", checks("wskdebug.js"))
def test_where_runs_may_overlap(found: dict[str, str], check: str) -> None:
    passed(found, check)


def test_where_they_may_not(server: running.Server) -> None:
    name = "withoutOverlapTheRecordsAreAsked_"
    passed(outcomes(server, "wskdebug.js", name), name)
