"""Certificates of further domains: each client gets that of the name it asks for when hands are shaken (SNI).

A folder has `<domain>.crt` and `<domain>.key` for each. One that cannot be used leaves the domain what it had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visp.telemetry import log

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

DOMAINS_LIMIT = 1000
"""Certificates of a folder, by name; further ones are not read, and the log says so."""

Stamp = tuple[tuple[int, int, int], ...]


class Further:
    """`load` reads a certificate and its key; it raises `ValueError`'s like with a sentence."""

    def __init__(self, folder: Path, load: Callable[[Path, Path], ssl.SSLContext], unusable: type[Exception]) -> None:
        self._folder = folder
        self._load = load
        self._unusable = unusable
        self._stamps: dict[str, Stamp] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    def choose(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Is asked when hands are shaken; for a name of none of the domains all stays as it is."""
        found = self._contexts.get((name or "").lower())
        if found is not None:
            connection.context = found

    def refresh(self, *, is_first: bool = False) -> int:
        """Takes what has changed in the folder; how many could not be used. Blocking.

        At first it raises for one that cannot be used.
        """
        names = sorted(path.stem for path in self._folder.glob("*.crt"))
        if len(names) > DOMAINS_LIMIT:
            log.error("tls.too_many_domains", folder=str(self._folder), limit=DOMAINS_LIMIT)
        failures = 0
        contexts, stamps = {}, {}
        for name in names[:DOMAINS_LIMIT]:
            paths = self._folder / f"{name}.crt", self._folder / f"{name}.key"
            stamp, held = stamp_of(*paths), self._contexts.get(name.lower())
            if held is not None:
                contexts[name.lower()] = held
            if stamp != self._stamps.get(name):
                try:
                    contexts[name.lower()] = self._load(*paths)
                except self._unusable as error:
                    if is_first:
                        raise
                    failures += 1
                    log.error("tls.kept", domain=name, reason=str(error))
            stamps[name] = stamp
        self._contexts, self._stamps = contexts, stamps
        return failures


def stamp_of(*paths: Path) -> Stamp:
    """What tells one version of files from another; of what is not there, nothing."""
    found = []
    for path in paths:
        try:
            each = path.stat()
            found.append((each.st_ino, each.st_mtime_ns, each.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)
