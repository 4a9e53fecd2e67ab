"""What an image is called, and when it is pulled."""

from __future__ import annotations

import pytest

from visp.entity.images import Policy, Pull, is_same, of_manifest, of_user
from visp.entity.runtime_manifest import Image, Manifest

MANIFEST = Manifest({}, (Image(prefix="openwhisk", name="dockerskeleton", tag="nightly"),))
NONE = Policy()


@pytest.mark.parametrize(
    ("image", "pull"),
    [
        ("me/it", Pull.NEEDED),
        ("me/it:latest", Pull.NEEDED),
        ("it", Pull.NEEDED),
        ("me/it:1", Pull.TRIED),
        ("localhost:5000/me/it", Pull.NEEDED),
        ("localhost:5000/me/it:1", Pull.TRIED),
        (f"me/it@sha256:{'0' * 64}", Pull.TRIED),
        ("openwhisk/dockerskeleton:nightly", Pull.IF_MISSING),
        ("openwhisk/dockerskeleton", Pull.NEEDED),
        ("openwhisk/action-python-v3.11:nightly", Pull.TRIED),
    ],
)
def test_of_a_user(image: str, pull: Pull) -> None:
    wanted = of_user(image, MANIFEST, NONE)
    assert (wanted.name, wanted.wrote, wanted.pull, wanted.is_users) == (image, image, pull, True)


def test_local_images_are_not_pulled() -> None:
    policy = Policy(local_prefix="made/here")
    assert of_user("made/here/it", MANIFEST, policy).pull is Pull.IF_MISSING
    assert of_user("reg.example/made/here/it:1", MANIFEST, policy).pull is Pull.IF_MISSING
    assert of_user("made/it", MANIFEST, policy).pull is Pull.NEEDED


def test_registries_come_before_names_without_one() -> None:
    policy = Policy(runtimes_registry="ours.example/", user_images_registry="theirs.example:5000")
    assert of_manifest("openwhisk/a:b", policy).name == "ours.example/openwhisk/a:b"
    assert of_user("me/it:1", MANIFEST, policy).name == "theirs.example:5000/me/it:1"
    assert of_user("me/it:1", MANIFEST, policy).wrote == "me/it:1"
    assert of_user("other.example/me/it:1", MANIFEST, policy).name == "other.example/me/it:1"
    assert of_user("openwhisk/dockerskeleton:nightly", MANIFEST, policy).name.startswith("ours.example/")


def test_a_missing_tag_is_latest() -> None:
    assert is_same("a/b", "a/b:latest")
    assert not is_same("a/b", "a/b:1")
    assert not is_same("a/b", "r.example/a/b")
