"""What a terminal is shown: colours and tables, and no control characters of someone else's."""

import contextlib
import io

import pytest

from visp.cli import output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return contextlib.redirect_stdout(Terminal())


EVIL = "a\x1b]0;title\x07b\rc\u202ed\x9b2J"


def test_control_characters_are_shown_not_obeyed(terminal):
    with terminal as shown:
        output.line(EVIL)
    assert shown.getvalue() == "a\\u001b]0;title\\u0007b\\u000dc\\u202ed\\u009b2J\n"


def test_a_table_on_a_terminal(terminal):
    with terminal as shown:
        output.table("actions", ("action", "kind"), [("/guest/[bold]x", EVIL)], (70,))
    assert "action" in shown.getvalue()
    assert "/guest/[bold]x" in shown.getvalue()
    assert "\x1b]0;" not in shown.getvalue()


def test_json_on_a_terminal_is_coloured_and_whole(terminal):
    with terminal as shown:
        output.document(b'{"a": "' + b"x" * 300 + b'"}')
    assert "\x1b[" in shown.getvalue()
    assert "x" * 300 in shown.getvalue()


def test_a_pipe_gets_the_bytes_as_they_are(capsys):
    output.line(EVIL)
    output.line("\ud800")
    assert capsys.readouterr().out == f"{EVIL}\n\\ud800\n"


def test_a_table_in_a_pipe(capsys):
    output.table("actions", ("action", "kind"), [("a", "b"), ("longer than that", "")], (8,))
    assert capsys.readouterr().out == "actions\na        b\nlonger than that\n"


def test_a_terminal_that_is_too_narrow_gets_lines(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    with terminal as shown:
        output.table("actions", ("action", "kind"), [("x" * 50, "b")], (52,))
    assert shown.getvalue() == f"actions\n{'x' * 50}   b\n"
