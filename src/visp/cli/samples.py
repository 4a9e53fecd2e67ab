"""What the platform's feeds fire triggers with: one event of each, to try rules and actions by."""

from __future__ import annotations

from importlib import resources

import msgspec

from visp.cli.exits import misuse

PREFIX = "/whisk.system/"


def samples() -> dict[str, msgspec.Raw]:
    """The event of each feed, by `package/feed`."""
    raw = resources.files("visp.feed").joinpath("samples.json").read_bytes()
    return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])


def sample(feed: str) -> bytes:
    """A feed's event; raises `CommandError` for one that there is none of."""
    found = samples().get(feed.removeprefix(PREFIX))
    if found is None:
        raise misuse(f"there is no sample of '{feed}': `visp event samples` lists those that there are")
    return bytes(found)
