"""The kinds that run as images: those of the manifest that no program of this machine runs, and images of users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.entity import images
from visp.entity.execs import BLACKBOX, IMAGE, SKELETON
from visp.entity.images import Policy, Wanted
from visp.runtime.base import Command, Takes

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.entity.runtime_manifest import Manifest


class ImageKind(msgspec.Struct, frozen=True, kw_only=True):
    """What runs by an image, which unpacks and compiles by itself."""

    image: Wanted
    is_sentinelled: bool = False
    takes: Takes = Takes.AS_SENT
    recipe: None = None
    is_concurrent: bool = False
    rests: bool = False
    keeps_compiled: bool = False

    def command(self, memory_mb: int) -> Command:
        """Its own, whatever the memory."""
        return Command(image=self.image)


class ImageKinds:
    """Looked up by name while a container engine is there (`is_up`); else there are none."""

    def __init__(self, manifest: Manifest, policy: Policy, is_up: Callable[[], bool]) -> None:
        self._manifest = manifest
        self._policy = policy
        self._is_up = is_up

    def get(self, runtime: str) -> ImageKind | None:
        """By `visp.entity.execs.runtime_of`."""
        if not self._is_up():
            return None
        if runtime.startswith(IMAGE):
            return ImageKind(image=images.of_user(runtime.removeprefix(IMAGE), self._manifest, self._policy))
        if runtime == BLACKBOX:
            known = (str(image) for image in self._manifest.blackboxes)
            skeleton = next((image for image in known if SKELETON in image), SKELETON)
            return ImageKind(image=images.of_manifest(skeleton, self._policy))
        kind = self._manifest.find(runtime)
        if kind is None:
            return None
        return ImageKind(image=images.of_manifest(str(kind.image), self._policy), is_sentinelled=kind.sentinelled_logs)
