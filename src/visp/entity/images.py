"""What an image is called, and whether it is pulled before a container is made of it. Pure.

Source: the rules of Apache OpenWhisk's invoker. A user's image is pulled: without a tag, or `latest`, at each cold
start, and what cannot be pulled does not run; of another tag a copy that is here already serves too. Images of the
manifest are not pulled, nor are those of its `blackboxes`, nor local ones.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from visp.entity.runtime_manifest import Manifest

LATEST = "latest"


class Pull(Enum):
    """Before a container is made of an image."""

    IF_MISSING = "if missing"
    """Only what is not here: an engine cannot do without."""
    TRIED = "tried"
    """Where that fails, a copy that is here serves."""
    NEEDED = "needed"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """An image to run: its whole `name`, as whoever wants it `wrote` it, and whether that is a user."""

    name: str
    wrote: str
    pull: Pull
    is_users: bool = False


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's: registries that are put before names without one, of the manifest's images and of users'.

    Images whose prefix is `local_prefix` are never pulled (OpenWhisk's `bypassPullForLocalImages`).
    """

    runtimes_registry: str = ""
    user_images_registry: str = ""
    local_prefix: str | None = None


class _Parts(msgspec.Struct, frozen=True):
    """`registry/prefix/name:tag@digest`."""

    registry: str
    path: str
    tag: str
    digest: str

    @property
    def prefix(self) -> str:
        return self.path.rpartition("/")[0]


def of_manifest(image: str, policy: Policy) -> Wanted:
    """An image of the manifest."""
    return Wanted(name=_located(image, policy.runtimes_registry), wrote=image, pull=Pull.IF_MISSING)


def of_user(image: str, manifest: Manifest, policy: Policy) -> Wanted:
    """An image that an action names."""
    parts = _split(image)
    is_known = any(is_same(image, str(known)) for known in manifest.blackboxes)
    if is_known or (policy.local_prefix is not None and parts.prefix == policy.local_prefix):
        pull = Pull.IF_MISSING
    elif not parts.digest and parts.tag in ("", LATEST):
        pull = Pull.NEEDED
    else:
        pull = Pull.TRIED
    registry = policy.runtimes_registry if is_known else policy.user_images_registry
    return Wanted(name=_located(image, registry), wrote=image, pull=pull, is_users=True)


def is_same(one: str, other: str) -> bool:
    """Whether both name the same image: a missing tag is `latest`."""
    first, second = _split(one), _split(other)
    return (first.registry, first.path, first.tag or LATEST, first.digest) == (
        second.registry,
        second.path,
        second.tag or LATEST,
        second.digest,
    )


def _located(image: str, registry: str) -> str:
    """With the registry before it, unless it names one."""
    return f"{registry.rstrip('/')}/{image}" if registry and not _split(image).registry else image


def _split(image: str) -> _Parts:
    """As container engines read a name: what has a dot or a port, or is `localhost`, before the first slash."""
    rest, _, digest = image.partition("@")
    head, slash, tail = rest.partition("/")
    registry = ""
    if slash and ("." in head or ":" in head or head == "localhost"):
        registry, rest = head, tail
    path, _, tag = rest.partition(":")
    return _Parts(registry, path, tag, digest)
