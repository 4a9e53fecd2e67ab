"""Dead letters: how one is kept, told and shown. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from visp.bus.messages import ActivationMessage, LetterMessage, decode_task, encode_task
from visp.entity.names import FullyQualifiedName, from_id
from visp.errors import Corrupt
from visp.store.base import Letter


def letter_of(message: LetterMessage) -> Letter:
    """Kept under the id of the last attempt."""
    run = message.run
    return Letter(id=run.id, namespace=run.namespace, at_ms=message.at_ms, body=encode_task(message))


def run_of(letter: Letter) -> ActivationMessage:
    """The last attempt. Raises `Corrupt`."""
    return _message(letter).run


def name_of(run: ActivationMessage) -> FullyQualifiedName:
    """What the caller asked for: the action, or its name below the binding that it was found through."""
    action = from_id(run.action)
    if run.binding is None:
        return action
    binding = from_id(run.binding)
    return FullyQualifiedName(binding.namespace, binding.name, action.name)


def render(letter: Letter) -> dict[str, Any]:
    """As it is shown. Raises `Corrupt`."""
    message = _message(letter)
    shown: dict[str, Any] = msgspec.json.decode(letter_event(message), type=dict[str, msgspec.Raw])
    return shown | {"target": message.target or None}


def _message(letter: Letter) -> LetterMessage:
    try:
        message = decode_task(letter.body)
    except msgspec.DecodeError:
        raise Corrupt() from None
    if not isinstance(message, LetterMessage):
        raise Corrupt()
    return message


def letter_event(message: LetterMessage) -> bytes:
    """What a dead letter's target is given."""
    run, follow = message.run, message.run.follow
    return msgspec.json.encode(
        {
            "activationId": run.id,
            "first": (follow and follow.first) or run.id,
            "attempts": 1 if follow is None else follow.attempt,
            "action": run.action,
            "at": message.at_ms,
            "status": message.status,
            "result": msgspec.Raw(message.result),
            "params": msgspec.Raw(run.content),
        }
    )
