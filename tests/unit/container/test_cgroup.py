"""Groups of containers, in folders that are no groups: what is removed, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from visp.container import cgroup
from visp.container.cgroup import Cgroups, Limits


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


def test_memory_never_exceeds_memory_with_swap_while_both_are_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel refuses a bound that is above the other one at that moment; the same again is not written."""
    written: list[str] = []
    monkeypatch.setattr(cgroup, "_set", lambda file, value: written.append(f"{Path(file).name}={value}"))
    group = Cgroups({"memory": tmp_path}).make("a", Limits(memory_bytes=256, processes=1))
    assert group is not None
    for memory_bytes in (512, 512, 128):
        group.limit(Limits(memory_bytes=memory_bytes, processes=1))
    memory, both = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
    assert written == [f"{memory}=256", f"{both}=256", f"{both}=512", f"{memory}=512", f"{memory}=128", f"{both}=128"]
