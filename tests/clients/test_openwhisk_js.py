"""npm `openwhisk`, the JavaScript client that everything else is built on: every method, option and refusal."""

from __future__ import annotations

import pytest
from tests.clients.conftest import can_run, checks, outcomes, passed

from visp.client import running

pytestmark = can_run


@pytest.fixture(scope="module")
def found(server: running.Server) -> dict[str, str]:
    return outcomes(server, "openwhisk.js")


@pytest.mark.parametrize("check", checks("openwhisk.js"))
def test_openwhisk(found: dict[str, str], check: str) -> None:
    passed(found, check)
