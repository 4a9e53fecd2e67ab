"""What a conductor says: which component comes next, with which argument, and what it wants to be told again.

Source: OpenWhisk's conductor actions. A conductor's result is an object with `action`, `params` and `state`; without
`action` the composition is over. Its next argument is the component's result under the `state`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.entity.execs import SequenceExec
from visp.entity.names import CALLERS_NAMESPACE, FullyQualifiedName, is_name, split_path
from visp.entity.parameters import is_truthy
from visp.entity.payload import encode, parse_answer

if TYPE_CHECKING:
    from visp.entity.action import Action

NOTHING = b"{}"


class Told(msgspec.Struct, frozen=True):
    """A conductor's result: `action` is its JSON (None: the composition is over), `params` and `state` are objects.

    `params` is None where the conductor gave none.
    """

    action: bytes | None
    params: bytes | None
    state: bytes


def is_conductor(action: Action) -> bool:
    """Whether the action conducts: on a sequence the annotation means nothing."""
    return is_truthy(action.annotations, "conductor") and not isinstance(action.exec, SequenceExec)


def composes(action: Action) -> bool:
    """Whether running the action means to run others."""
    return isinstance(action.exec, SequenceExec) or is_conductor(action)


def parse_told(result: bytes) -> Told:
    """What a conductor's result asks for; an array asks for nothing."""
    answer = parse_answer(result)
    fields = None if answer is None else answer.fields
    if fields is None:
        return Told(None, None, NOTHING)
    action, params, state = fields.get("action"), fields.get("params"), fields.get("state")
    return Told(
        action=None if action is None else msgspec.json.format(bytes(action), indent=-1),
        params=None if params is None else _boxed(params, "value"),
        state=NOTHING if state is None else _boxed(state, "state"),
    )


def parse_component(value: bytes, namespace: str) -> FullyQualifiedName | None:
    """The component that a conductor names, or None for what is no name.

    `/ns[/pkg]/name` and `ns/pkg/name` are complete; `name` and `pkg/name` are in the caller's namespace.
    """
    try:
        text = msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(text, str):
        return None
    segments = split_path(text)
    if not text.startswith("/") and len(segments) < 3:
        segments = [CALLERS_NAMESPACE, *segments]
    if not 2 <= len(segments) <= 3 or not all(map(is_name, segments)):
        return None
    package = segments[1] if len(segments) == 3 else None
    return FullyQualifiedName(segments[0], package, segments[-1]).resolve(namespace)


def argument(result: bytes, state: bytes) -> bytes:
    """A conductor's next argument: a component's result under the state; an array replaces everything."""
    kept = parse_answer(state)
    answer = parse_answer(result)
    if kept is None or not kept.fields or (answer is not None and answer.fields is None):
        return result
    return encode((answer.fields or {} if answer else {}) | kept.fields)


def _boxed(value: msgspec.Raw, key: str) -> bytes:
    """An object as it is, anything else as the one value of an object."""
    raw = bytes(value)
    return raw if raw.lstrip()[:1] == b"{" else encode({key: value})
