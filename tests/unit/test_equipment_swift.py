"""How Swift's toolchain is made, without making it."""

from __future__ import annotations

from pathlib import Path

import pytest

from visp import premises
from visp.equipment import rust as equipment_rust
from visp.equipment import swift as equipment_swift
from visp.equipment.fetching import InstallError
from visp.settings import Settings


@pytest.mark.parametrize(
    ("sources", "mirror"),
    [
        (["Types: deb\nURIs: http://a.example/debian\nSuites: bookworm\n"], "http://a.example/debian"),
        (["deb http://b.example/debian/ bookworm main\n"], "http://b.example/debian/"),
        (["# none\n", "deb [arch=amd64] https://c.example/debian bookworm main\n"], "https://c.example/debian"),
        (["deb-src http://a.example/debian bookworm main\ndeb http://d.example/ubuntu noble main\n"], None),
        ([], None),
    ],
)
def test_mirror_is_the_first_of_debian(sources: list[str], mirror: str | None) -> None:
    assert equipment_swift.mirror_in(sources) == mirror


def test_libraries_that_are_linked() -> None:
    said = (
        "/usr/lib/a.so:\n\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f12)\n"
        "\tlibgone.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f34)\n"
    )
    assert equipment_swift.linked_in(said) == ["/lib/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equipment_swift.os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallError, match="apt-get install debootstrap bubblewrap"):
        equipment_swift.fill(tmp_path, print)


def test_only_root_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equipment_swift.os, "geteuid", lambda: 1000)
    with pytest.raises(InstallError, match="root installs it"):
        equipment_swift.fill(tmp_path, print)


def test_manifest_looks_where_things_are_put() -> None:
    manifest = premises.read_manifest(Settings())
    for kind in manifest.runtimes["swift"]:
        if kind.local is None:
            assert kind.deprecated
            continue
        assert kind.local.build is not None
        assert kind.local.build.root == f"{equipment_swift.FOLDER}/root"
        assert kind.local.build.programs == (f"{{runtimes}}/{equipment_swift.FOLDER}/bin/swift",)
    for kind in manifest.runtimes["rust"]:
        if kind.local is not None:
            assert kind.local.build is not None
            version = kind.kind.partition(":")[2]
            crates = f"{{runtimes}}/{equipment_rust.FOLDER}"
            assert kind.local.build.environment["CRATES"] == crates
            assert kind.local.build.environment["COMPILED"] == f"{crates}/{equipment_rust.COMPILED}-{version}"
