"""The command as a whole: global flags, exit statuses, and what it must not import or say."""

import signal
import subprocess
import sys

import click
import pytest

from visp import __version__
from visp.cli import drawing
from visp.cli.main import root

AUTH_KEY = "k" * 64


@pytest.mark.parametrize(
    "arguments",
    [
        ("-i", "-v", "namespace", "list"),
        ("namespace", "-i", "-v", "list"),
        ("namespace", "list", "-i", "-v"),
    ],
)
def test_global_flags_may_stand_anywhere(api, visp, arguments):
    api.answer("GET /namespaces", body=["guest"])
    done = visp(*arguments)
    assert done.stdout == "namespaces\nguest\n"
    assert "GET" in done.stderr


def test_flags_win_over_variables_and_the_last_one_counts(api, visp):
    api.answer("GET /namespaces", body=["guest"])
    done = visp("--apihost", "nowhere:1", "namespace", "list", "--apihost", api.url, WHISK_APIHOST="other:1")
    assert done.exit_code == 0


def test_verbose_never_shows_the_key(api, visp):
    api.answer("POST /namespaces/_/actions/a", 202, {"activationId": "1", "echo": f"some-uuid:{AUTH_KEY}"})
    done = visp("action", "invoke", "a", "-p", "authKey", f"some-uuid:{AUTH_KEY}", "-v", "--json")
    assert "POST" in done.stderr
    assert "authorization" in done.stderr.lower()
    assert AUTH_KEY not in done.stderr
    assert api.requests[0].headers["authorization"].split()[1] not in done.stderr


def test_a_server_that_is_away_is_3_and_says_how_to_start_one(visp):
    done = visp("namespace", "list", WHISK_APIHOST="http://127.0.0.1:1")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "nothing listens at http://127.0.0.1:1; `visp start`" in done.stderr


def test_a_host_elsewhere_needs_a_key(visp):
    done = visp("namespace", "list", WHISK_APIHOST="functions.example.org", WHISK_AUTH="")
    assert done.exit_code == 2
    assert "there is no key for https://functions.example.org" in done.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("action", "nonsense"), ("action", "list", "--nonsense")])
def test_misuse_is_2(visp, arguments):
    done = visp(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: visp" in done.stderr


def test_ctrl_c_ends_quietly_with_130(api):
    api.answer("GET /namespaces/_/activations", body=[])
    line = [sys.executable, "-m", "visp", "activation", "poll", "--apihost", api.url, "--auth", f"u:{AUTH_KEY}"]
    # A job that a shell put in the background hands an ignored SIGINT to all below it: this child is a foreground one.
    running = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "Polling for activation logs\n"
    running.send_signal(signal.SIGINT)
    said, complaint = running.communicate(timeout=30)
    assert (running.returncode, said, complaint) == (130, "", "Enter Ctrl-c to exit.\n")


def test_a_reader_that_leaves_is_no_error():
    line = [sys.executable, "-m", "visp", "config", "show", "--json"]
    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.close()
    _, complaint = running.communicate(timeout=30)
    assert complaint == b""


def test_version(visp):
    assert __version__ in visp("--version").stdout


def test_start_and_help_import_no_more_than_they_need():
    script = """
import sys
from visp.cli.main import root
root.get_command(None, "start")
first = set(sys.modules)
for name in root.list_commands(None):
    root.get_command(None, name)
heavy = {"rich", "rich_click", "http.client", "ssl", "asyncio", "visp.roles", "visp.serving", "visp.doctor"}
print(sorted(first & (heavy | {"msgspec", "visp.settings"})), sorted(set(sys.modules) & heavy))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[] []\n"


def test_help_on_a_terminal_is_drawn_and_keeps_its_examples_in_lines(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for path in ("", "action", "action create", "property set", "start"):
        command, ctx = root, click.Context(root, info_name="visp")
        for name in path.split():
            command = command.get_command(ctx, name)
            ctx = click.Context(command, info_name=name, parent=ctx)
        shown = drawing.help_of(command, ctx)
        assert "╭─ Options" in shown
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.opts[-1] in shown
        for line in (command.epilog or "").splitlines()[1:]:
            assert line in shown


def test_every_command_explains_itself():
    def walk(command, path):
        assert command.help, path
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{path} {parameter.name}"
        for name in getattr(command, "list_commands", lambda _: [])(None):
            walk(command.get_command(None, name), f"{path} {name}")

    walk(root, "visp")
