"""The flags of commands that read the server's settings: `start`, `doctor`, `config show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visp.cli.exits import misuse

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.settings import Loaded

LEVELS = ("debug", "info", "warning", "error")

_OPTIONS = (
    click.option("--host", metavar="ADDRESS", help="Address to listen on, 127.0.0.1 by default."),
    click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="Port, 3233 by default; 0: any."),
    click.option("--data-dir", metavar="FOLDER", help="Folder of everything that is kept."),
    click.option("--config", metavar="FILE", help="Settings file; visp.toml of the working folder by default."),
    click.option("--workers", type=click.IntRange(1, 64), metavar="N", help="Shards: processes that share the work."),
    click.option(
        "--driver",
        metavar="NAME",
        help="Where actions run: auto, fork, bwrap, nsjail, landlock, runsc, docker, process or module:Class.",
    ),
    click.option(
        "--i-trust-all-code",
        "trust_all_code",
        is_flag=True,
        default=None,
        help="Allow the driver that isolates nothing: every action's author is trusted.",
    ),
    click.option(
        "--allow-weak-sandbox",
        is_flag=True,
        default=None,
        help="Let driver landlock serve more than one namespace.",
    ),
    click.option("--log-level", type=click.Choice(LEVELS), help="Least level that is logged, info by default."),
    click.option(
        "--set", "others", multiple=True, metavar="NAME=VALUE", help="Any other setting: --set pool.idle_s=60."
    ),
)


_DATA_OPTIONS = (
    click.option("--data-dir", metavar="FOLDER", help="The server's data folder."),
    click.option("--config", metavar="FILE", help="Settings file; visp.toml of the working folder by default."),
    click.option("--set", "others", multiple=True, metavar="NAME=VALUE", help="Any other setting: secret_file=FILE."),
)


def data_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that name a server's files: `data_dir`, `config` and `others`."""
    for option in reversed(_DATA_OPTIONS):
        command = option(command)
    return command


def settings_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the flags; the command gets `config`, `others` and the rest by the names of the settings."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def load(config: str | None, others: tuple[str, ...], named: dict[str, Any]) -> Loaded:
    """The settings in force; raises `SettingsError`."""
    from visp import settings

    return settings.load(config=Path(config) if config else None, flags=named | _pairs(others))


def _pairs(others: tuple[str, ...]) -> dict[str, str]:
    out = {}
    for text in others:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise misuse(f"--set {text}: write --set NAME=VALUE, for instance --set limits.invocations_per_minute=60")
        out[name.strip()] = value
    return out
