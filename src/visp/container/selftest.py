"""Before a driver serves, the escape probe runs in it: an attempt that succeeds keeps the server from serving.

The verdict is remembered under boot, driver and a hash of all that it depends on, so that the next start does not wait
for it, whichever data folder it has.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import tempfile
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from visp.container import once
from visp.container.base import ContainerSpec, Mount
from visp.errors import ContainerError, StartFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from visp.container.base import Maker, Template
    from visp.container.sandbox import SandboxDriver
    from visp.remembered import Memory

MEMORY_MB = 128
TIMEOUT_S = 20.0
PROBE = resources.files("visp.container").joinpath("probe.py")

PROCESSES_LIMIT = 4
"""bubblewrap's own, the probe, and one more for what may come between."""


async def check(driver: SandboxDriver, verdicts: Memory, python: str, templates: Sequence[Template] = ()) -> bool:
    """Runs the probe, in a plain container and in a child of each template, unless it passed already; whether it ran.

    Raises `StartFailed` naming every hole.
    """
    probe = PROBE.read_bytes()
    key = _key(driver, templates, probe)
    if verdicts.get(key) is not None:
        return False
    holes = await run(driver, python, probe)
    for template in templates:
        holes += await run(driver, python, probe, template)
    if holes:
        raise StartFailed(
            f"the sandbox of driver {driver.name} has holes, so visp does not serve: {'; '.join(holes)} "
            "(`visp doctor` looks further)"
        )
    verdicts.put(key, "holds")
    return True


async def run(
    driver: SandboxDriver, python: str, probe: bytes, template: Template | None = None, maker: Maker | None = None
) -> list[str]:
    """The holes that the probe finds, in a container of the driver's, or of its `maker`.

    Raises `StartFailed` when it cannot run.
    """
    answer = bytearray()
    with ExitStack() as stack:
        host = _put_up(stack, driver.cells.folder)
        program = driver.cells.install("probe.py", probe)
        spec = ContainerSpec(
            id=f"probe-{os.getpid()}-{secrets.token_hex(3)}",
            argv=(python, "-I", "/visp/probe.py", msgspec.json.encode(host).decode()),
            env={},
            memory_mb=MEMORY_MB,
            mounts=(Mount(str(program), "/visp/probe.py"),),
            template=template,
        )
        try:
            ended = await once.run(maker or driver, spec, b"", answer.extend, TIMEOUT_S)
        except ContainerError as error:
            raise StartFailed(f"the sandbox cannot be tested: {error}") from None
    if not answer:
        raise StartFailed(f"the sandbox cannot be tested: {ended.said.strip() or f'exit status {ended.status}'}")
    return judge(msgspec.json.decode(bytes(answer)), driver.must_be, driver.leaves_open)


def judge(answer: dict[str, Any], must_be: Mapping[str, object], leaves_open: tuple[str, ...] = ()) -> list[str]:
    """What an answer of the probe has that it must not have: facts, and attempts but those that are left open."""
    attempts, facts = answer["attempts"], answer["facts"]
    if "error" in facts:
        return [f"the probe could not look: {facts['error']}"]
    tried = {name: result for name, result in attempts.items() if not name.startswith(leaves_open)}
    holes = [f"{name}: {result}" for name, result in tried.items() if result is not None]
    holes += [
        f"{name} is {facts.get(name)}, must be {expected}"
        for name, expected in must_be.items()
        if facts.get(name) != expected
    ]
    if facts.get("processes", 0) > PROCESSES_LIMIT:
        holes.append(f"{facts['processes']} processes are visible")
    return holes


def _put_up(stack: ExitStack, folder: Path) -> dict[str, object]:
    """Things on the host that the probe must not reach."""
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
    place.chmod(0o711)
    secret = place / "secret"
    secret.write_text("a secret of the host")
    secret.chmod(0o644)
    abstract = f"visp-probe-{secrets.token_hex(8)}"
    path = place / "socket"
    port = 0
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_UNIX, "\0" + abstract),
        (socket.AF_UNIX, str(path)),
    ):
        listener = stack.enter_context(socket.socket(family))
        listener.bind(address)
        listener.listen(4)
        if family == socket.AF_INET:
            port = listener.getsockname()[1]
    path.chmod(0o777)
    return {"secret": str(secret), "port": port, "abstract": abstract, "path": str(path), "pid": _a_host_process()}


def _a_host_process() -> int:
    """A process that must not be seen inside: the newest, whose number nothing inside has; 0 where all are low."""
    newest = max(int(name) for name in os.listdir("/proc") if name.isdigit())
    return newest if newest > 2 * PROCESSES_LIMIT else 0


def _key(driver: SandboxDriver, templates: Sequence[Template], probe: bytes) -> str:
    """All that the verdict depends on; where the folder of cells lies is no part of that, but on which device."""
    folder = str(driver.cells.folder)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    words = f"{os.stat(folder).st_dev} {repr(templates).replace(folder, '')}"
    return f"{boot} {driver.name} {hashlib.sha256(driver.fingerprint() + words.encode() + probe).hexdigest()}"
