"""Groups of containers, in folders that are no groups: what is removed, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from visp.container import cgroup
from visp.container.cgroup import Cgroups


def test_what_cannot_be_removed_in_time_goes_with_a_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "GONE_S", 0.0)
    groups = Cgroups({"memory": tmp_path})
    slow, quick = groups.make("slow"), groups.make("quick")
    assert slow is not None
    assert quick is not None
    (tmp_path / "slow" / "busy").mkdir()
    slow.remove()
    assert (tmp_path / "slow").exists()
    (tmp_path / "slow" / "busy").rmdir()
    quick.remove()
    assert list(tmp_path.iterdir()) == []
