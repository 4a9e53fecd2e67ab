"""Where the API is and whose key opens it: flags over `WHISK_*` variables over the properties file over defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from visp.client import properties
from visp.client.errors import Misused
from visp.entity.network import is_loopback
from visp.entity.subject import GUEST_KEY, GUEST_UUID

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_HOST = "http://127.0.0.1:3233"
DEFAULT_VERSION = "v1"
GUEST_AUTH = f"{GUEST_UUID}:{GUEST_KEY}"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a connection needs. `auth` is empty where nobody gave a key."""

    apihost: str
    """With its scheme, without a slash at its end."""
    auth: str
    apiversion: str = DEFAULT_VERSION
    is_insecure: bool = False
    cert: str = ""
    key: str = ""

    @property
    def base(self) -> str:
        return f"{self.apihost}/api/{self.apiversion}"


def resolve(
    environ: Mapping[str, str],
    *,
    apihost: str | None = None,
    auth: str | None = None,
    apiversion: str | None = None,
    is_insecure: bool = False,
) -> Credentials:
    """What holds for a call. An empty value counts as none.

    Where nobody names a key, and the host is this machine, it is the well-known one of `guest`, which servers accept
    only there. Raises `Misused`.
    """
    written = properties.read(properties.file_of(environ))
    host = complete_host(apihost or environ.get("WHISK_APIHOST") or written.get("APIHOST") or DEFAULT_HOST)
    given = auth or environ.get("WHISK_AUTH") or written.get("AUTH") or ""
    return Credentials(
        apihost=host,
        auth=given or (GUEST_AUTH if is_loopback(urlsplit(host).hostname or "") else ""),
        apiversion=apiversion or environ.get("WHISK_APIVERSION") or written.get("APIVERSION") or DEFAULT_VERSION,
        is_insecure=is_insecure,
        cert=written.get("CERT", ""),
        key=written.get("KEY", ""),
    )


def complete_host(text: str) -> str:
    """A host as typed, with its scheme: https unless it is this machine. Raises `Misused`."""
    text = text.strip()
    try:
        if "://" not in text:
            host = urlsplit(f"//{text}").hostname or ""
            text = f"{'http' if is_loopback(host) else 'https'}://{text}"
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise Misused(f"'{text}' is no host: {error}") from None
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if not is_plain or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Misused(f"'{text}' is no host: write HOST, HOST:PORT, http://HOST:PORT or https://HOST")
    if parts.username is not None or parts.query or parts.fragment:
        raise Misused("a host holds no user, query or fragment: the key is given by --auth, WHISK_AUTH or .wskprops")
    return text.rstrip("/")
