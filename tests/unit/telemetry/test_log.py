"""One event is one line; no field can forge another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from visp.telemetry import log


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    log.set_level("info")
    yield
    log.set_level("info")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "value", ["a\nb", "a\r\nERROR forged", "\x1b[31mred", 'say "no"', "two words", "", "ÅÄÖ", "\u2028", {"a": "b\n"}]
)
def test_a_value_that_is_not_plain_is_written_as_json(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    log.info("event", field=value, other=1)
    (line,) = lines(capsys)
    assert line.isprintable()
    assert " INFO event field=" in line
    assert line.endswith(" other=1")
    assert '"' in line.partition("field=")[2]


def test_below_the_level_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    log.debug("event")
    log.set_level("error")
    log.warning("event")
    assert lines(capsys) == []
    assert log.is_on("error")
    assert not log.is_on("warning")


def test_an_exception_is_one_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.exception("failed", transid="t")
    (line,) = lines(capsys)
    assert " ERROR failed transid=t traceback=" in line
    assert "ValueError: first\\nsecond" in line
