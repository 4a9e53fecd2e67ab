"""Unit tests leave nothing in the memories that servers of this user share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from visp import remembered


@pytest.fixture(scope="session", autouse=True)
def own_memories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where they are meanwhile."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remembered, "ROOT_CACHE", folder)
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder
