"""What is counted of calls of APIs."""

from __future__ import annotations

import pytest

from visp.controller import calls as subject
from visp.controller.calls import CALLS, OTHERS, REFUSALS, SECONDS, Calls


def test_calls_have_a_bounded_number_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "NAMED_LIMIT", 2)
    calls = Calls()
    for base_path in ("/a", "/b", "/c", "/d", "/a"):
        calls.add("ns", base_path, 204, 0)
    calls.add("ns", "/a", 404, 10)
    calls.refuse("key")
    found = {family.name: family.samples for family in calls.measured()}
    assert found[CALLS] == {("ns/a", "2xx"): 2, ("ns/b", "2xx"): 1, (OTHERS, "2xx"): 2, ("ns/a", "4xx"): 1}
    assert found[REFUSALS] == {("key",): 1}
    assert SECONDS in found
