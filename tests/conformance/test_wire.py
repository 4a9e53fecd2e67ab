"""What a launcher answers on its own wire, in a container of the driver's, to what the platform never sends."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.conformance.conftest import Place, Servers

from visp import premises
from visp.container.base import ContainerSpec, Mount, Pipes
from visp.container.local import LocalDriver
from visp.entity.execs import BlackboxExec, Code, CodeExec
from visp.invoker.building import Builds
from visp.invoker.code import CodeCache
from visp.invoker.unpacking import unpack_command
from visp.roles import drivers
from visp.roles.kinds import system_python
from visp.runtime import local
from visp.runtime.base import Gone, Reply
from visp.runtime.client import PipeClient
from visp.settings import Container, Runtimes, Settings

RESULT_BYTES = 1 << 20
WITHIN_S = 60.0
TWICE = b'{"error":"Cannot initialize the action more than once."}'


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder through which containers under other uids can pass."""
    with tempfile.TemporaryDirectory(prefix="visp-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


async def text_of(code: Code) -> str:
    assert code.inline is not None
    return code.inline


def body(value: Any) -> bytes:
    return msgspec.json.encode({"value": value, "activation_id": "1", "deadline": "1"})


async def test_a_second_init_changes_nothing(place: Place, servers: Servers, folder: Path) -> None:
    """Where the launcher is visp's own it says so; a program of the action's takes it for a run."""
    settings = Settings(
        driver=place.driver.chosen,
        trust_all_code=True,
        container=Container(cells_dir=str(folder / "cells"), blanks=0),
        runtimes=Runtimes(folder=str(servers.home)),
    )
    driver = drivers.make(settings, folder / "data")
    if not isinstance(driver, LocalDriver):
        pytest.skip("an image is asked by its own tests")
    driver.cells.prepare()
    kinds = local.find(premises.read_manifest(settings), driver.cells.install, driver.runtimes)
    kind, python = kinds[place.kind.name], system_python(kinds)
    assert python is not None
    program = driver.cells.install("unpack.py", local.read_program("unpack.py"))
    cache = CodeCache(
        text_of=text_of,
        driver=driver,
        folder=driver.cells.code,
        command=unpack_command(python, program),
        builds=Builds(settings.build),
    )
    await driver.start()
    try:
        code = Code(is_binary=place.kind.compile is not None, inline=place.kind.code)
        exec = BlackboxExec("i", code) if place.kind.image else CodeExec(place.kind.name, code, place.kind.main)
        prepared = await cache.prepare(exec, kind)
        command = kind.command(place.kind.memory_mb)
        container = await driver.create(
            ContainerSpec(
                id=f"wire-{secrets.token_hex(8)}",
                argv=command.argv,
                env=command.env,
                memory_mb=place.kind.memory_mb,
                mounts=tuple(Mount(host, inside) for host, inside in command.mounts),
                code_folder=prepared.folder,
                reserve_mb=command.reserve_mb,
            )
        )
        assert isinstance(container.wire, Pipes)
        wire = container.wire
        client = PipeClient(
            asyncio.get_running_loop(),
            (wire.stdin, wire.replies, wire.stdout, wire.stderr),
            lambda stream, data: None,
            place.kind.name.partition(":")[0],
            RESULT_BYTES,
        )

        async def ask(line: bytes, *, is_init: bool) -> Reply | Gone:
            answered: asyncio.Future[Reply | Gone] = asyncio.get_running_loop().create_future()
            (client.init if is_init else client.run)(line, answered.set_result)
            return await asyncio.wait_for(answered, WITHIN_S)

        try:
            value: dict[str, Any] = {"name": "a", "main": place.kind.main or "main", "binary": False, "env": {}}
            value |= {"code": prepared.text} if prepared.folder is None else {"folder": container.code_at}
            first = await ask(msgspec.json.encode({"value": value}), is_init=True)
            assert isinstance(first, Reply)
            assert first.status == 200, first
            if not place.kind.is_own:
                second = await ask(msgspec.json.encode({"value": value}), is_init=True)
                assert isinstance(second, Reply)
                assert (second.status, second.body.replace(b'": "', b'":"')) == (502, TWICE)
            said = await ask(body({"do": "hello", "name": "first"}), is_init=False)
            assert isinstance(said, Reply)
            assert msgspec.json.decode(said.body) == {"greeting": "Hello, first!"}
        finally:
            client.close()
            await container.destroy()
    finally:
        await cache.close()
        await driver.close()
