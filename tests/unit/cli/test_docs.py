"""docs/cli.md names every command and every option."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from visp.cli.command import global_options
from visp.cli.main import root

PAGE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
SECTIONS = dict(re.findall(r"^#+ `(visp[^`]*)`\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL))
GLOBAL = {name for option in global_options() for name in option.opts}
EVERYWHERE = {"--help", "-h"}


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            inner = command.get_command(click.Context(command), name)
            assert inner is not None
            yield from commands(inner, f"{path} {name}")
    else:
        yield path, command


COMMANDS = dict(commands(root, "visp"))


@pytest.mark.parametrize("path", COMMANDS)
def test_the_page_has_each_command_with_its_options(path):
    assert path in SECTIONS, f"docs/cli.md has no section `{path}`"
    written = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", SECTIONS[path]))
    has_globals = any(
        parameter.name == "apiversion" and not parameter.expose_value for parameter in COMMANDS[path].params
    )
    for parameter in COMMANDS[path].params:
        if not isinstance(parameter, click.Option):
            continue
        for name in parameter.opts:
            if not (has_globals and name in GLOBAL) and name not in EVERYWHERE:
                assert name in written, f"section `{path}` of docs/cli.md does not tell {name}"


def test_the_global_flags_have_their_section():
    for name in GLOBAL | {"--version"}:
        assert f"`{name}" in SECTIONS["visp"], name


def test_the_page_has_no_command_that_is_not_there():
    assert set(SECTIONS) - {"visp"} == set(COMMANDS)
