"""`exec`: every kind is parsed, what is wrong is said in OpenWhisk's words."""

from importlib import resources
from typing import Any

import pytest

from visp.entity import execs
from visp.entity.execs import BlackboxExec, CodeExec, SequenceExec
from visp.entity.runtime_manifest import ManifestError, parse_manifest
from visp.errors import Malformed, TooLarge

MANIFEST = parse_manifest(resources.files("visp.runtime").joinpath("manifest.json").read_bytes())


def parse(value: Any) -> Any:
    return execs.parse_exec(value, MANIFEST, "guest")


@pytest.mark.parametrize("kind", [kind.kind for kind in MANIFEST.kinds()])
def test_every_kind_of_the_manifest_is_parsed_and_rendered_as_it_came(kind: str) -> None:
    exec = parse({"kind": kind, "code": "source", "main": "Main"})
    assert execs.render_exec(exec, "source") == {"kind": kind, "code": "source", "binary": False, "main": "Main"}


def test_the_default_of_a_family_becomes_concrete() -> None:
    assert parse({"kind": " NodeJS:default ", "code": ""}).kind == "nodejs:20"
    assert parse({"kind": "python:default", "code": ""}).kind == "python:3.11"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"code": "x"}, "'kind' must be a string defined in 'exec'"),
        ({"kind": 5}, "'kind' must be a string defined in 'exec'"),
        (
            {"kind": "nodejs:20"},
            "'code' must be a string or attachment object defined in 'exec' for 'nodejs:20' actions",
        ),
        ({"kind": "nodejs:20", "code": 5}, "Could not deserialize as attachment record: 5"),
        ({"kind": "java:8", "code": "x"}, "'main' must be a string defined in 'exec' for 'java:8' actions"),
        ({"kind": "sequence"}, "'components' must be defined for sequence kind"),
        ({"kind": "sequence", "components": "a"}, "'components' must be an array"),
        ({"kind": "blackbox"}, "'image' must be a string defined in 'exec' for 'blackbox' actions"),
        ({"kind": "blackbox", "image": "Bad Image!"}, "could not parse image name"),
        (5, "JSON object expected"),
    ],
)
def test_what_is_wrong_is_said(value: object, reason: str) -> None:
    with pytest.raises(Malformed) as raised:
        parse(value)
    assert raised.value.reason == reason


def test_an_unknown_kind_is_told_the_known_ones() -> None:
    with pytest.raises(Malformed) as raised:
        parse({"kind": "cobol:1", "code": "x"})
    assert "The specified runtime 'cobol:1' is not supported by this platform." in raised.value.reason
    assert all(f"'{kind}'" in raised.value.reason for kind in ("nodejs:20", "python:3.11", "blackbox", "sequence"))


@pytest.mark.parametrize(
    "image", ["a", "a/b", "a/b:tag", "registry.io/a/b:1", "localhost:5000/a", "openwhisk/dockerskeleton"]
)
def test_images(image: str) -> None:
    exec = parse({"kind": "blackbox", "image": image, "code": "  "})
    assert exec == BlackboxExec(image)
    assert execs.render_exec(exec, None) == {"kind": "blackbox", "image": image, "binary": False}


def test_components_are_qualified() -> None:
    exec = parse({"kind": "sequence", "components": ["/_/a", "ns/pkg/b"]})
    assert isinstance(exec, SequenceExec)
    assert execs.render_exec(exec, None) == {"kind": "sequence", "components": ["/guest/a", "/ns/pkg/b"]}


@pytest.mark.parametrize(
    ("code", "expected"), [("abcd", True), ("", False), ("abc", False), ("ab==", True), ("a b c d ", False)]
)
def test_binary_is_computed_as_openwhisk_does(code: str, expected: bool) -> None:
    exec = parse({"kind": "nodejs:20", "code": code, "binary": not expected})
    assert isinstance(exec, CodeExec)
    assert exec.code.is_binary is expected


def test_code_over_its_limit() -> None:
    with pytest.raises(TooLarge, match=r"exec larger than allowed: 11 > 10 bytes\."):
        execs.check_size(parse({"kind": "nodejs:20", "code": "x" * 11}), 10)


def test_code_is_measured_before_it_is_decoded() -> None:
    sent = b'{"exec": {"kind": "x", "code": "1234\\n6\\u00e99", "main": "ab", "image": "c"}}'
    execs.check_sent_size(sent, len(sent))
    with pytest.raises(TooLarge, match=r"exec larger than allowed: 12 > 11 bytes\."):
        execs.check_sent_size(sent, 11)
    execs.check_sent_size(sent, 12)


@pytest.mark.parametrize("sent", [b"{}", b'{"exec": 5}', b'{"exec": {"code": 567890}}', b'{"exec": {"code": "56789'])
def test_what_else_is_wrong_is_told_elsewhere(sent: bytes) -> None:
    execs.check_sent_size(sent, 1)


def test_a_family_needs_one_default() -> None:
    entry = b'{"kind":"a:1","image":{"name":"x"}}'
    with pytest.raises(ManifestError, match="needs one default kind, has 0"):
        parse_manifest(b'{"runtimes":{"a":[%b,%b]}}' % (entry, entry))
