"""Rust actions: compiled once, without a network, and run by ActionLoop's contract."""

from __future__ import annotations

import pytest
from tests.system.compiled import PRECOMPILED, PROGRAMS, behaves, is_here, put, response, result, zipped, zipped_folder
from tests.system.conftest import Api

pytestmark = pytest.mark.all  # each code is compiled: seconds to a minute

KINDS = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(not is_here(kind), reason=f"{kind} is not here: visp runtime install {kind}"),
    )
    for kind in ("rust:1.63", "rust:1.95")
]
TYPED = """
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
pub struct Input { name: Option<String> }

#[derive(Serialize)]
pub struct Output { greeting: String }

pub fn greet(input: Input) -> Result<Output, String> {
    input.name.map(|name| Output { greeting: format!("Hello, {}!", name) }).ok_or_else(|| "no name".to_string())
}
"""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def test_program(api: Api, kind: str) -> None:
    name = put(api, kind, (PROGRAMS / "rust/everything.rs").read_text())
    behaves(api, name)
    panicked = response(api, name, {"do": "panic"})
    assert (panicked["status"], panicked["result"]) == ("action developer error", {"error": "command exited"})
    assert "boom" in "".join(panicked["logs"])
    number = response(api, name, {"do": "number"})
    assert number["result"] == {"error": "The action did not return a dictionary or array."}


def test_another_main(api: Api, kind: str) -> None:
    assert result(api, put(api, kind, (PROGRAMS / "rust/everything.rs").read_text(), "other"), {}) == {"by": "other"}


def test_types_of_its_own(api: Api, kind: str) -> None:
    name = put(api, kind, TYPED, "greet")
    assert result(api, name, {"name": "Zoë"}) == {"greeting": "Hello, Zoë!"}
    assert response(api, name, {})["result"] == {"error": "no name"}
    assert "invalid type" in response(api, name, {"name": 7})["result"]["error"]


def test_crate(api: Api, kind: str) -> None:
    assert result(api, put(api, kind, zipped_folder(PROGRAMS / "rust/package")), {}) == {"beside": "imported"}


def test_what_does_not_compile(api: Api, kind: str) -> None:
    got = response(api, put(api, kind, "pub fn main() -> { }"), {})
    assert got["status"] == "action developer error"
    assert "expected type" in got["result"]["error"]


def test_compiled_elsewhere(api: Api, kind: str) -> None:
    name = put(api, kind, zipped({"exec": PRECOMPILED.encode()}, 0o755))
    assert result(api, name, {"name": "exec"}) == {"by": "exec"}
