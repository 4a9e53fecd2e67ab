"""What is loaded for an action before it starts: of the standard library, and nothing else, whatever is claimed."""

from __future__ import annotations

import pytest

from visp.invoker.imports import COMMON, KNOWN_LIMIT, NAMES_LIMIT, Imports, fit
from visp.runtime.base import IMPORTED, imported


@pytest.mark.parametrize(
    "name",
    [
        "numpy",
        "main__",
        "action",
        "os; evil",
        "../x",
        "xml..etree",
        "Xml",
        "antigravity",
        "multiprocessing.pool",
        "",
        "x" * 99,
    ],
)
def test_what_a_template_must_not_load_is_left_out(name: str) -> None:
    assert fit([name, "sqlite3"]) == ("sqlite3",)


def test_names_are_few_and_in_order() -> None:
    assert fit(["xml.etree", "sqlite3", "sqlite3"]) == ("sqlite3", "xml.etree")
    assert len(fit([f"xml.a{number}" for number in range(10_000)])) == NAMES_LIMIT


def test_what_was_learned_first_stays_when_it_was_loaded_before_the_next_start() -> None:
    imports = Imports()
    imports.learn("guest/a", ["sqlite3", "numpy"])
    imports.learn("guest/a", ["smtplib"])
    assert imports.of("guest/a") == ("smtplib", "sqlite3")
    imports.learn("guest/b", ["numpy"])
    assert imports.of("guest/b") == ()
    for number in range(KNOWN_LIMIT):
        imports.learn(f"guest/n{number}", ["sqlite3"])
    assert imports.of("guest/a") == ()


def test_who_imports_what_is_common_shares_one_template() -> None:
    assert fit(["ssl"]) == fit(["asyncio.events", "http.client"]) == tuple(sorted(COMMON))
    assert set(fit(["ssl", "sqlite3"])) == {*COMMON, "sqlite3"}
    assert len(fit(["ssl", *(f"xml.a{number}" for number in range(10_000))])) == NAMES_LIMIT


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("import asyncio\n", True),
        ("import os\n\nfrom urllib.request import urlopen\n", True),
        ("def main(args):\n\timport  ssl, json\n", True),
        ("import json\ndef main(args): return args\n", False),
        ("import sslmate", False),
        ("# import ssl", False),
        ("\n" * 20_000 + "import ssl", False),
        ("", False),
    ],
)
def test_text_of_an_action_tells_before_its_first_start(text: str, is_told: bool) -> None:
    imports = Imports()
    imports.expect("guest/a", text)
    assert imports.of("guest/a") == (tuple(sorted(COMMON)) if is_told else ())


def test_what_a_start_has_taught_is_not_forgotten_for_a_text() -> None:
    imports = Imports()
    imports.learn("guest/a", ["sqlite3"])
    imports.expect("guest/a", "import ssl")
    assert imports.of("guest/a") == ("sqlite3",)


def test_answers_that_do_not_read_teach_nothing() -> None:
    assert imported(IMPORTED + b'"sqlite3"]}') == ["sqlite3"]
    for rest in (b"", b"1]}", b'"a"', b"\xff]}"):
        assert imported(IMPORTED + rest) == []
