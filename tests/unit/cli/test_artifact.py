"""Folders become archives: the same bytes for the same content."""

import io
import os
import zipfile

import pytest

from visp.cli.artifact import needs_engine, pack


def test_the_archive_depends_on_content_alone(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, names in ((one, ("b.js", "a.js")), (other, ("a.js", "b.js"))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text(name)
            (folder / name).chmod(0o600 if folder is one else 0o644)
    os.utime(one / "a.js", (1, 1))
    assert pack(one) == pack(other)
    (other / "a.js").write_text("changed")
    assert pack(one) != pack(other)


def test_executables_stay_executable_and_rubbish_stays_behind(tmp_path):
    (tmp_path / "exec").write_text("#!/bin/sh")
    (tmp_path / "exec").chmod(0o755)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("")
    with zipfile.ZipFile(io.BytesIO(pack(tmp_path))) as archive:
        [entry] = archive.infolist()
    assert (entry.filename, entry.external_attr >> 16) == ("exec", 0o100755)


def test_links_are_followed_and_a_loop_ends(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "library.js").write_text("x")
    (inside / "linked").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    with zipfile.ZipFile(io.BytesIO(pack(inside))) as archive:
        assert archive.namelist() == ["linked/library.js"]


@pytest.mark.parametrize(
    ("image", "needs"),
    [
        ("openwhisk/dockerskeleton", False),
        ("openwhisk/dockerskeleton:nightly", False),
        ("docker.io/openwhisk/dockerskeleton", False),
        ("openwhisk/dockerskeleton2", True),
        ("me/image", True),
    ],
)
def test_only_the_skeleton_runs_without_an_engine(image, needs):
    assert needs_engine(image) is needs
