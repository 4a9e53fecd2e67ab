"""How a template reads bubblewrap's words: what all cells share, and what each mounts by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from visp.container import enclosure, view


def test_size_belongs_to_the_option_that_follows() -> None:
    words = ("--tmpfs", "/a", "--size", "9", "--tmpfs", "/b", "--tmpfs", "/c", "--perms", "0555", "--dir", "/d")
    assert list(enclosure.parse(words)) == [
        ("--tmpfs", ["/a"], None),
        ("--tmpfs", ["/b"], "9"),
        ("--tmpfs", ["/c"], None),
        ("--dir", ["/d"], None),
    ]


def test_word_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError, match="--overlay"):
        list(enclosure.parse(("--overlay", "/a")))


def test_each_cell_has_what_is_written_and_its_own_processes() -> None:
    own = [
        operands[-1] for option, operands, _ in enclosure.parse(view.SYSTEM) if enclosure.is_of_cell(option, operands)
    ]
    assert own == ["/proc", "/proc/sys"]
    assert enclosure.is_of_cell("--tmpfs", ["/tmp"])
    assert not enclosure.is_of_cell("--ro-bind", ["/usr", "/usr"])


def test_links_are_followed_on_the_host(tmp_path: Path) -> None:
    (tmp_path / "true").touch()
    (tmp_path / "link").symlink_to(tmp_path / "true")
    there = str(tmp_path.resolve() / "true")
    assert enclosure.resolved("--ro-bind-try", [str(tmp_path / "link"), "/x"]) == ("--ro-bind-try", [there, "/x"])
    assert enclosure.resolved("--symlink", ["usr/bin", "/bin"]) == ("--symlink", ["usr/bin", "/bin"])
