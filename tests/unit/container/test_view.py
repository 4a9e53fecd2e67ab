"""What containers see, for drivers that do not speak bubblewrap's words."""

from __future__ import annotations

from pathlib import Path

from visp.container.base import Mount
from visp.container.view import KERNEL, SYSTEM, Bind, Link, Scratch, on_host, seen


def test_the_host_as_it_is_seen(tmp_path: Path) -> None:
    words = (*SYSTEM, "--ro-bind-try", str(tmp_path / "none"), "/none", "--ro-bind-try", str(tmp_path), "/there")
    known = list(seen((*words, "--size", "512", "--tmpfs", "/tmp")))
    assert known[0] == Bind("/usr", "/usr")
    assert Link("usr/bin", "/bin") in known
    assert known[-2:] == [Bind(str(tmp_path), "/there"), Scratch("/tmp", 512)]
    assert not [one for one in known if one.inside.startswith(("/proc", "/dev", "/none"))]


def test_another_root_comes_entry_by_entry(tmp_path: Path) -> None:
    for name in ("usr", "etc", "proc", "dev", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin").symlink_to("usr/bin")
    known = list(seen(("--ro-bind", str(tmp_path), "/", *KERNEL)))
    assert known == [Link("usr/bin", "/bin"), Bind(f"{tmp_path}/etc", "/etc"), Bind(f"{tmp_path}/usr", "/usr")]


def test_a_path_inside_has_a_name_outside() -> None:
    mounts = (Mount("/cells/launcher.py", "/visp/launcher.py"), Mount("/var/lib/runtimes", "/opt/visp"))
    assert on_host("/visp/launcher.py", mounts) == "/cells/launcher.py"
    assert on_host("/opt/visp/node/bin/node", mounts) == "/var/lib/runtimes/node/bin/node"
    assert on_host("/opt/vispers", mounts) == "/opt/vispers"
    assert on_host("--flag", mounts) == "--flag"
