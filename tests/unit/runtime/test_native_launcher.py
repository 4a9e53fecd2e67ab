"""Any program as an action: by ActionLoop's contract, and by the docker skeleton's."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.wires import Wire, init, launcher, run, wired

ARGV = ["/usr/bin/python3", "-s", "-u", launcher("native/launcher.py")]
pytestmark = pytest.mark.skipif(not Path(ARGV[0]).exists(), reason="there is no system Python: apt-get install python3")

ECHO = 'while read -r line; do echo "$line" >&3; done\n'
ENVIRONMENT = """
import json, os, sys
with os.fdopen(3, "w") as out:
    for line in sys.stdin:
        print(json.dumps(dict(os.environ)), file=out, flush=True)
"""


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Wire]:
    """The launcher of ActionLoop's programs."""
    with wired(ARGV, tmp_path) as wire:
        yield wire


@pytest.fixture
def skeleton(tmp_path: Path) -> Iterator[Wire]:
    """The launcher of the docker skeleton's."""
    with wired([*ARGV, "skeleton"], tmp_path) as wire:
        yield wire


def program(folder: Path, text: str, name: str = "code") -> Path:
    """A folder with this program."""
    path = folder / name / "exec"
    path.parent.mkdir()
    path.write_text(text)
    path.chmod(0o755)
    return path.parent


def shell(folder: Path, text: str) -> Path:
    return program(folder, "#!/bin/sh\n" + text)


def python(folder: Path, text: str) -> Path:
    return program(folder, "#!/usr/bin/python3\n" + text)


# ── ActionLoop ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_go_to_the_program_and_its_lines_are_the_replies(loop: Wire, tmp_path: Path) -> None:
    assert loop.asked(init(shell(tmp_path, ECHO))) == {"ok": True}
    for n in range(3):
        assert loop.asked(run({"n": n})) == run({"n": n})


def test_its_environment_is_the_proxys(tmp_path: Path) -> None:
    given = {"__OW_API_HOST": "here", "OTHER": "hidden", "PATH": "/usr/bin:/bin"}
    with wired(ARGV, tmp_path, given) as wire:
        wire.ask(init(python(tmp_path, ENVIRONMENT), **{"__OW_ACTION_NAME": "/guest/a", "OWN": "1"}))
        env = wire.asked(run({}))
    assert (env["__OW_API_HOST"], env["__OW_ACTION_NAME"], env["OWN"]) == ("here", "/guest/a", "1")
    assert env["__OW_PROXY_VERSION"]
    assert "OTHER" not in env
    assert "__OW_WAIT_FOR_ACK" not in env


def test_init_values_that_are_no_text_are_given_as_json(loop: Wire, tmp_path: Path) -> None:
    line = init(python(tmp_path, ENVIRONMENT))
    line["value"]["env"] = {"LIST": [1, "b"], "NUMBER": 3}
    assert loop.asked(line) == {"ok": True}
    env = loop.asked(run({}))
    assert (env["LIST"], env["NUMBER"]) == ('[1, "b"]', "3")


def test_its_working_directory_is_its_folder(loop: Wire, tmp_path: Path) -> None:
    folder = shell(tmp_path, 'while read -r line; do echo "{\\"at\\": \\"$PWD\\"}" >&3; done\n')
    loop.ask(init(folder))
    assert loop.asked(run({})) == {"at": str(folder)}


def test_one_that_is_waited_for_answers_init_itself(tmp_path: Path) -> None:
    code = 'test -n "$__OW_WAIT_FOR_ACK" && echo \'{"ok":true, "own": 1}\' >&3\n' + ECHO
    with wired(ARGV, tmp_path, {"OW_WAIT_FOR_ACK": "1"}) as wire:
        assert wire.asked(init(shell(tmp_path, code))) == {"ok": True, "own": 1}
        assert wire.asked(run({"n": 1}))["value"] == {"n": 1}


def test_one_that_is_waited_for_has_the_usual_signals(tmp_path: Path) -> None:
    code = 'grep SigIgn /proc/self/status | { read -r _ set; echo "{\\"set\\": \\"$set\\"}" >&3; }\n'
    with wired(ARGV, tmp_path, {"OW_WAIT_FOR_ACK": "1"}) as wire:
        ignored = int(wire.asked(init(shell(tmp_path, code)))["set"], 16)
    assert not [one for one in (signal.SIGPIPE, signal.SIGXFSZ) if ignored & 1 << one - 1], "Python ignores these"


@pytest.mark.parametrize("code", ["exit 0\n", "exit 3\n"])
def test_one_that_ends_at_once_has_not_started(loop: Wire, tmp_path: Path, code: str) -> None:
    said = loop.asked(init(shell(tmp_path, code)))
    assert said in ("!Cannot start action. Check logs for details.", {"ok": True}), "a slow machine sees its end later"
    assert loop.process.wait(10) == (0 if isinstance(said, str) else int(code.split()[1]))


def test_one_that_the_kernel_does_not_start(loop: Wire, tmp_path: Path) -> None:
    assert loop.asked(init(program(tmp_path, "#!/no/such\n"))) == "!Cannot start action. Check logs for details."
    assert "exec: No such file or directory" in loop.logs()[1]


def test_one_that_ends_ends_the_container_with_its_status(loop: Wire, tmp_path: Path) -> None:
    assert loop.asked(init(shell(tmp_path, "read -r line; exit 7\n"))) == {"ok": True}
    assert loop.ask(run({})) == b""
    assert loop.process.wait(10) == 7


@pytest.mark.parametrize("words", [[], ["skeleton"]])
def test_code_that_cannot_be_run_is_told(tmp_path: Path, words: list[str]) -> None:
    empty, plain, without = program(tmp_path, "", "a"), program(tmp_path, "text", "b"), tmp_path / "c"
    without.mkdir()
    (plain / "exec").chmod(0o644)
    no_code, no_program = (
        "!Missing main/no code to execute.",
        "!The action failed to generate or locate a binary. See logs for details.",
    )
    for folder, sentence in ((None, no_code), (empty, no_code), (without, no_program), (plain, no_program)):
        with wired(ARGV + words, tmp_path) as wire:
            assert wire.asked(init(folder)) == sentence
            assert wire.logs()[1] == sentence[1:] + "\n"


# ── the skeleton ────────────────────────────────────────────────────────────────────────────────────────────────


def started(skeleton: Wire, folder: Path) -> Wire:
    assert skeleton.asked(init(folder)) == {"ok": True}
    return skeleton


def test_the_value_is_its_argument_and_its_input(skeleton: Wire, tmp_path: Path) -> None:
    wire = started(skeleton, shell(tmp_path, 'echo "[$1, $(cat)]"\n'))
    for value in ({"a": "ü"}, [1], {}):
        assert wire.asked(run(value)) == [value, value]


def test_a_long_value_is_its_input_only(skeleton: Wire, tmp_path: Path) -> None:
    code = (
        "import json, sys\nprint(json.dumps({'arguments': len(sys.argv) - 1, 'bytes': len(sys.stdin.buffer.read())}))\n"
    )
    wire = started(skeleton, python(tmp_path, code))
    frame = len('{"text":""}')
    for size, arguments in ((131071, 1), (131072, 0), (200_000, 0)):
        assert wire.asked(run({"text": "x" * (size - frame)})) == {"arguments": arguments, "bytes": size}


def test_its_last_line_is_the_reply_and_the_rest_is_logs(skeleton: Wire, tmp_path: Path) -> None:
    wire = started(skeleton, shell(tmp_path, "echo one; echo two >&2; echo three; echo '{\"a\": 1}'; echo; exit 3\n"))
    assert wire.ask(run({})) == b'{"a": 1}'
    assert wire.logs() == ("one\nthree\n", "two\n")


@pytest.mark.parametrize("printed", ["5", "text", "", '"{}"'])
def test_a_last_line_that_is_no_object_is_a_log(skeleton: Wire, tmp_path: Path, printed: str) -> None:
    wire = started(skeleton, shell(tmp_path, f"echo '{printed}'\n"))
    assert wire.asked(run({})) == "!The action did not return a dictionary or array."
    assert wire.logs()[0].strip() == printed


def test_its_environment_has_what_belongs_to_the_run(skeleton: Wire, tmp_path: Path) -> None:
    chosen = "{n: v for n, v in os.environ.items() if n.startswith('__OW_') or n == 'OWN'}"
    code = f"import json, os\nprint(json.dumps({chosen}))\n"
    assert skeleton.asked(init(python(tmp_path, code), **{"OWN": "1"})) == {"ok": True}
    assert skeleton.asked(run({}, namespace="guest")) == {
        "OWN": "1",
        "__OW_ACTIVATION_ID": "1",
        "__OW_NAMESPACE": "guest",
    }


def test_it_has_neither_channel(skeleton: Wire, tmp_path: Path) -> None:
    code = "import json, os\nprint(json.dumps({'open': sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1]}))\n"
    wire = started(skeleton, python(tmp_path, code))
    assert wire.asked(run({})) == {"open": [0, 1, 2]}


def test_a_second_init_is_refused(skeleton: Wire, tmp_path: Path) -> None:
    line: dict[str, Any] = init(shell(tmp_path, "echo '{\"first\": 1}'\n"))
    assert skeleton.asked(line) == {"ok": True}
    assert skeleton.asked(line) == "!Cannot initialize the action more than once."
    assert json.loads(skeleton.ask(run({}))) == {"first": 1}
