"""What the global flags say, and the client that is made of them when a command first needs one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from visp.client.credentials import Credentials
    from visp.client.rest import Client


class Session:
    """One run of the command line. `flags` holds the global flags that were given, by name."""

    def __init__(self) -> None:
        self.flags: dict[str, Any] = {}
        self._client: Client | None = None

    def credentials(self) -> Credentials:
        """What flags, variables and `.wskprops` come to; raises `Misused`."""
        from visp.client.credentials import resolve

        return resolve(
            os.environ,
            apihost=self.flags.get("apihost"),
            auth=self.flags.get("auth"),
            apiversion=self.flags.get("apiversion"),
            is_insecure=self.flags.get("insecure", False),
        )

    @property
    def client(self) -> Client:
        if self._client is None:
            from visp.client.rest import Client

            self._client = Client(self.credentials(), self._trace if self.flags.get("verbose") else None)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @staticmethod
    def _trace(text: str) -> None:
        from visp.cli import output

        output.note(text)


pass_session = click.make_pass_decorator(Session, ensure=True)
