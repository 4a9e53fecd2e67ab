"""What a conductor says, and how its words are read."""

import pytest

from visp.entity.action import Action
from visp.entity.composition import argument, composes, is_conductor, parse_component, parse_told
from visp.entity.execs import Code, CodeExec, SequenceExec
from visp.entity.names import FullyQualifiedName
from visp.entity.parameters import Parameters, plain

NAME = FullyQualifiedName("ns", None, "a")


def action(annotations: Parameters, *, is_sequence: bool = False) -> Action:
    exec = SequenceExec((NAME,)) if is_sequence else CodeExec("python:3.11", Code(False, inline=""))
    return Action(name=NAME, exec=exec, annotations=annotations)


@pytest.mark.parametrize(
    ("value", "conducts"),
    [(True, True), ({"type": "sequence"}, True), ("yes", True), (False, False), (0, False), (None, False), ("", False)],
)
def test_an_action_conducts_by_a_truthy_annotation(value: object, conducts: bool) -> None:
    assert is_conductor(action(plain("conductor", value))) is conducts
    assert composes(action(plain("conductor", value))) is conducts


def test_a_sequence_composes_and_never_conducts() -> None:
    sequence = action(plain("conductor", True), is_sequence=True)
    assert composes(sequence)
    assert not is_conductor(sequence)
    assert not composes(action({}))


@pytest.mark.parametrize(
    ("result", "asked", "params", "state"),
    [
        (b'{"action":"a","params":{"x":1},"state":{"s":2}}', b'"a"', b'{"x":1}', b'{"s":2}'),
        (b'{"action":"a"}', b'"a"', None, b"{}"),
        (b'{"action":5,"params":7,"state":[8]}', b"5", b'{"value":7}', b'{"state":[8]}'),
        (b'{"action":null}', b"null", None, b"{}"),
        (b'{"action":{ "a" : 1 }}', b'{"a":1}', None, b"{}"),
        (b'{"x":1}', None, None, b"{}"),
        (b"[1,2]", None, None, b"{}"),
    ],
)
def test_its_result_is_read(result: bytes, asked: bytes | None, params: bytes | None, state: bytes) -> None:
    told = parse_told(result)
    assert (told.action, told.params, told.state) == (asked, params, state)


@pytest.mark.parametrize(
    ("value", "id"),
    [
        (b'"a"', "ns/a"),
        (b'"pkg/a"', "ns/pkg/a"),
        (b'"other/pkg/a"', "other/pkg/a"),
        (b'"/_/a"', "ns/a"),
        (b'"/other/a"', "other/a"),
        (b'"/other/pkg/a"', "other/pkg/a"),
        (b'"/a"', None),
        (b'"a/b/c/d"', None),
        (b'""', None),
        (b'"/"', None),
        (b'" a"', None),
        (b"5", None),
        (b'{"name":"a"}', None),
    ],
)
def test_a_component_is_found_by_its_name(value: bytes, id: str | None) -> None:
    name = parse_component(value, "ns")
    assert (None if name is None else name.id) == id


@pytest.mark.parametrize(
    ("result", "state", "expected"),
    [
        (b'{"a":1,"b":2}', b'{"b":3}', b'{"a":1,"b":3}'),
        (b'{"a":1}', b"{}", b'{"a":1}'),
        (b"[1]", b'{"b":3}', b"[1]"),
        (b'{"error":"no"}', b'{"s":1}', b'{"error":"no","s":1}'),
    ],
)
def test_the_state_lies_over_the_result(result: bytes, state: bytes, expected: bytes) -> None:
    assert argument(result, state) == expected
