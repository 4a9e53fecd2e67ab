"""Locked parameters: how a value is kept, and who can read it again."""

import base64
import json

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from visp.entity.locking import VECTOR_BYTES, CannotUnlock, Locks, marks_of, parse_keys
from visp.entity.parameters import Parameter, Parameters, plain, values
from visp.entity.payload import merge

KEYS = {"aes-128": bytes(range(16)), "aes-256": bytes(range(32))}
VALUES = ["text", 5, None, True, {"a": [1, {"b": "ä"}]}, [], ""]


def locks(current: str = "aes-128", *older: bytes) -> Locks:
    return Locks(current, {scheme: (key, *older) for scheme, key in KEYS.items()})


@pytest.mark.parametrize("scheme", KEYS)
@pytest.mark.parametrize("value", VALUES)
def test_what_was_locked_is_opened(scheme: str, value: object) -> None:
    locked = locks(scheme).lock(plain("p", value) | plain("q", "other"))
    content = merge(values(locked), {})
    assert json.loads(locks().unlocked(content, marks_of(locked, {}))) == {"p": value, "q": "other"}


@pytest.mark.parametrize(("scheme", "key"), KEYS.items())
def test_a_locked_value_has_openwhisk_s_form(scheme: str, key: bytes) -> None:
    locked = locks(scheme).lock({"p": Parameter(msgspec.Raw(b'{ "a": 1 }'), init=True)})["p"]
    assert (locked.encryption, locked.init) == (scheme, True)
    data = base64.b64decode(json.loads(bytes(locked.value)))
    length = int.from_bytes(data[:4], "big")
    assert length == VECTOR_BYTES[scheme]
    assert AESGCM(key).decrypt(data[4 : 4 + length], data[4 + length :], None) == b'{"a":1}'


def test_two_values_that_are_the_same_look_different() -> None:
    first, second = (locks().lock(plain("p", 1))["p"].value for _ in range(2))
    assert bytes(first) != bytes(second)


@pytest.mark.parametrize("parameters", [{"p": Parameter(msgspec.Raw(b'"x"'), encryption="aes-128")}, plain("p", None)])
def test_what_is_locked_already_and_null_stay(parameters: Parameters) -> None:
    assert locks().lock(parameters) == parameters


@pytest.mark.parametrize("current", ["off", "noop", "aes-512"])
def test_without_a_scheme_nothing_is_locked(current: str) -> None:
    assert Locks(current, {"aes-128": (KEYS["aes-128"],)}).lock(plain("p", 1)) == plain("p", 1)


def test_what_the_caller_gives_is_not_opened() -> None:
    locked = locks().lock(plain("p", 1) | plain("q", 2))
    assert marks_of(locked, {"p": 5}) == (("q", "aes-128"),)


def test_an_unknown_scheme_is_passed_on() -> None:
    assert locks().unlocked(b'{"p":"kms:1"}', (("p", "kms"),)) == b'{"p":"kms:1"}'


@pytest.mark.parametrize("value", ['"bm90aGluZw=="', '"no base64"', "5", '""'])
def test_what_no_key_opens_is_refused(value: str) -> None:
    with pytest.raises(CannotUnlock):
        locks().unlocked(b'{"p":%b}' % value.encode(), (("p", "aes-128"),))


def test_older_keys_open_and_the_newest_locks_anew() -> None:
    old, new = bytes(16), KEYS["aes-128"]
    kept = Locks("aes-128", {"aes-128": (old,)}).lock(plain("p", "secret") | plain("q", 2))
    both = Locks("aes-128", {"aes-128": (new, old)})
    assert json.loads(both.unlocked(merge(values(kept), {}), marks_of(kept, {}))) == {"p": "secret", "q": 2}
    relocked = both.relock(kept | plain("plain", 1) | plain("null", None))
    assert relocked is not None
    assert relocked.pop("null") == plain("null", None)["null"]
    assert {parameter.encryption for parameter in relocked.values()} == {"aes-128"}
    only_new = Locks("aes-128", {"aes-128": (new,)})
    content = merge(values(relocked), {})
    assert json.loads(only_new.unlocked(content, marks_of(relocked, {}))) == {"p": "secret", "q": 2, "plain": 1}
    assert both.relock(relocked) is None


def test_another_scheme_locks_anew_and_what_cannot_be_opened_stays() -> None:
    kept = locks("aes-128").lock(plain("p", 1)) | {"q": Parameter(msgspec.Raw(b'"x"'), encryption="aes-128")}
    relocked = locks("aes-256").relock(kept)
    assert relocked is not None
    assert (relocked["p"].encryption, relocked["q"]) == ("aes-256", kept["q"])


def test_keys_are_read_from_a_setting() -> None:
    first, second = (base64.b64encode(key).decode() for key in (bytes(16), KEYS["aes-128"]))
    assert parse_keys(f"{first}, {second}", "aes-128") == (bytes(16), KEYS["aes-128"])
    assert parse_keys("", "aes-128") == ()


@pytest.mark.parametrize("text", ["*", "AAAA", base64.b64encode(bytes(32)).decode()])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|a key of"):
        parse_keys(text, "aes-128")
