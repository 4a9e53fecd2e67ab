"""What an activation's outcome makes, as the ledger carries it: the next attempt, or a dead letter and a hook's call.

Pure.
"""

from __future__ import annotations

import msgspec

from visp.bus.messages import ActivationMessage, Deferred, HookMessage, LetterMessage, encode_task
from visp.entity.follow import backoff_ms, following_id

ATTEMPT, LETTER, HOOK = "attempt", "letter", "hook"


def follow_ups(
    message: ActivationMessage, status: int, result: bytes, now_ms: int, draw: float
) -> tuple[Deferred, ...]:
    """What follows from this outcome of the message; `draw` is from 0 to 1."""
    follow = message.follow
    if follow is None:
        return ()
    if follow.retry is not None and follow.has_another(status):
        again = msgspec.structs.replace(
            message,
            id=following_id(message.id, ATTEMPT),
            received_ms=now_ms + backoff_ms(follow.retry, follow.attempt, draw),
            is_accepted=True,
            is_blocking=False,
            follow=msgspec.structs.replace(follow, attempt=follow.attempt + 1, first=follow.first or message.id),
        )
        return (Deferred(again.id, encode_task(again), again.received_ms),)
    out = []
    if follow.dead_letter is not None and follow.is_failure(status):
        letter = LetterMessage(
            id=following_id(message.id, LETTER),
            run=message,
            status=status,
            result=result,
            at_ms=now_ms,
            target=follow.dead_letter,
        )
        out.append(Deferred(letter.id, encode_task(letter), now_ms))
    if follow.hook is not None and follow.hook.hears_of(status):
        call = HookMessage(
            id=following_id(message.id, HOOK),
            namespace=message.namespace,
            namespace_uuid=message.namespace_uuid,
            activation=message.id,
            hook=follow.hook,
            at_ms=now_ms,
        )
        out.append(Deferred(call.id, encode_task(call), now_ms))
    return tuple(out)
