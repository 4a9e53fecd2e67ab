"""What is loaded for an action before it starts: of the standard library, and nothing else, whatever is claimed."""

from __future__ import annotations

import pytest

from visp.invoker.imports import KNOWN_LIMIT, NAMES_LIMIT, Imports, fit
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


def test_answers_that_do_not_read_teach_nothing() -> None:
    assert imported(IMPORTED + b'"sqlite3"]}') == ["sqlite3"]
    for rest in (b"", b"1]}", b'"a"', b"\xff]}"):
        assert imported(IMPORTED + rest) == []
