"""The runtimes manifest: which kinds there are, which is the default, and manifests that cannot be used."""

import json
from typing import Any

import pytest

from visp.entity.runtime_manifest import Image, ManifestError, parse_manifest, render_runtimes
from visp.errors import Malformed


def kind(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "kind": name,
        "image": {"prefix": "openwhisk", "name": "action-" + name.partition(":")[0], "tag": "n"},
    } | fields


MANIFEST = parse_manifest(
    json.dumps(
        {
            "runtimes": {
                "nodejs": [kind("nodejs:18"), kind("nodejs:20", default=True, attached={"attachmentName": "code"})],
                "java": [
                    kind("java:8", requireMain=True, deprecated=True, stemCells=[{"count": 1, "memory": "256 MB"}])
                ],
            },
            "blackboxes": [{"name": "dockerskeleton"}],
        }
    ).encode()
)


@pytest.mark.parametrize(
    ("given", "found"),
    [("nodejs:18", "nodejs:18"), ("nodejs:default", "nodejs:20"), ("java:default", "java:8"), ("java:8", "java:8")],
)
def test_kinds(given: str, found: str) -> None:
    assert MANIFEST.resolve(given).kind == found


@pytest.mark.parametrize("given", ["nodejs", "nodejs:", "nodejs:99", "cobol:default", "", "sequence"])
def test_kinds_that_are_not_known(given: str) -> None:
    with pytest.raises(Malformed) as raised:
        MANIFEST.resolve(given)
    assert raised.value.reason == (
        f"The specified runtime '{given}' is not supported by this platform. "
        "Valid values are: 'nodejs:18', 'nodejs:20', 'java:8', 'blackbox', 'sequence'."
    )


def test_what_deployment_tools_read() -> None:
    shown = render_runtimes(MANIFEST)
    assert shown["nodejs"][1] == {
        "kind": "nodejs:20",
        "image": "openwhisk/action-nodejs:n",
        "deprecated": False,
        "default": True,
        "attached": True,
        "requireMain": False,
    }
    assert [entry["default"] for entry in shown["nodejs"]] == [False, True]
    assert shown["java"][0] | {"kind": ""} == {
        "kind": "",
        "image": "openwhisk/action-java:n",
        "deprecated": True,
        "default": True,
        "attached": False,
        "requireMain": True,
    }


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (Image(name="a"), "a"),
        (Image(name="a", tag="1"), "a:1"),
        (Image(name="a", prefix="p", registry="r.io", tag="1"), "r.io/p/a:1"),
    ],
)
def test_names_of_images(image: Image, name: str) -> None:
    assert str(image) == name


@pytest.mark.parametrize("cell", [{"initialCount": 2, "memory": "256 MB"}, {"count": 2, "memory": "256MB"}])
def test_stem_cells(cell: dict[str, Any]) -> None:
    manifest = parse_manifest(json.dumps({"runtimes": {"a": [kind("a:1", stemCells=[cell])]}}).encode())
    [entry] = manifest.kinds()
    assert (entry.stem_cells[0].wanted, entry.stem_cells[0].memory_mb) == (2, 256)


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"runtimes": []},
        {"runtimes": {"a": [{"kind": "a:1"}]}},
        {"runtimes": {"A-b": [kind("a:1")]}},
        {"runtimes": {"a": [kind("a:1"), kind("a:2")]}},
        {"runtimes": {"a": [kind("a:1", default=True), kind("a:2", default=True)]}},
        {"runtimes": {"a": [kind("a:1", stemCells=[{"count": 1, "memory": "much"}])]}},
    ],
)
def test_manifests_that_cannot_be_used(document: Any) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff"])
def test_manifests_that_are_no_json(data: bytes) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        parse_manifest(data)
