"""Parameters and annotations: values stay the bytes they were, the last of equal keys wins, sizes are compact."""

import json

import pytest

from visp.entity.parameters import (
    check_size,
    init_keys,
    is_true,
    is_truthy,
    parse_parameters,
    plain,
    render_parameters,
    size_bytes,
    text,
    values,
)
from visp.entity.payload import encode
from visp.errors import Malformed, TooLarge


def parsed(value: object) -> dict[str, object]:
    parameters = parse_parameters(json.dumps(value).encode())
    assert parameters is not None
    return dict(parameters)


def test_values_stay_as_they_were_sent() -> None:
    raw = b'[{"key":"a","value": 12345678901234567890.10 },{"value":{"b" : 1e400},"key":"c"}]'
    parameters = parse_parameters(raw)
    assert parameters is not None
    rendered = encode(render_parameters(parameters))
    assert b"12345678901234567890.10" in rendered
    assert b"1e400" in rendered


def test_marks() -> None:
    parameters = parse_parameters(
        b'[{"key":"a","value":1,"init":true},{"key":"b","value":"x","encryption":"aes-128","init":false,"other":1}]'
    )
    assert parameters is not None
    assert json.loads(encode(render_parameters(parameters))) == [
        {"key": "a", "value": 1, "init": True},
        {"key": "b", "value": "x", "encryption": "aes-128"},
    ]
    assert init_keys(parameters) == {"a"}


def test_the_last_of_equal_keys_wins() -> None:
    parameters = parse_parameters(b'[{"key":"a","value":1},{"key":"b","value":2},{"key":"a","value":3}]')
    assert parameters is not None
    assert {key: bytes(value) for key, value in values(parameters).items()} == {"a": b"3", "b": b"2"}


def test_null_is_nothing_said() -> None:
    assert parse_parameters(b"null") is None
    assert parse_parameters(b"[]") == {}


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b"5",
        b'"x"',
        b"[1]",
        b"[null]",
        b"[[]]",
        b'[{"value":1}]',
        b'[{"key":"a"}]',
        b'[{"key":1,"value":1}]',
        b'[{"key":null,"value":1}]',
        b'[{"key":"a","value":1,"init":"yes"}]',
        b'[{"key":"a","value":1,"encryption":1}]',
        b'[{"key":"\xff","value":1}]',
        b"[",
    ],
)
def test_what_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed) as raised:
        parse_parameters(raw)
    assert raised.value.reason == "parameters malformed!"


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (b"[]", 0),
        (b'[{"key":"abc","value":null}]', 7),
        (b'[{"key":"a","value":{ "b" : [ 1, 2 ] }}]', 1 + len('{"b":[1,2]}')),
        ('[{"key":"é","value":"é"}]'.encode(), 2 + 4),
    ],
)
def test_sizes(raw: bytes, size: int) -> None:
    parameters = parse_parameters(raw)
    assert parameters is not None
    assert size_bytes(parameters) == size
    check_size("parameters", parameters, size)
    if size:
        with pytest.raises(TooLarge, match=rf"annotations larger than allowed: {size} > {size - 1} bytes\."):
            check_size("annotations", parameters, size - 1)


@pytest.mark.parametrize(
    ("value", "truthy"),
    [
        (True, True),
        (1, True),
        ("x", True),
        ([], True),
        ({}, True),
        (False, False),
        (0, False),
        (None, False),
        ("", False),
    ],
)
def test_truth(value: object, truthy: bool) -> None:
    assert is_truthy(plain("a", value), "a") is truthy
    assert is_true(plain("a", value), "a") is (value is True)


def test_what_is_absent() -> None:
    assert not is_truthy({}, "a")
    assert is_truthy({}, "a", default=True)
    assert not is_true({}, "a")
    assert text({}, "a") is None
    assert text(plain("a", 5), "a") is None
    assert text(plain("a", "é"), "a") == "é"
