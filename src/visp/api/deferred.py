"""Routes of what is due later, and of dead letters; and how a request that asks for a time or has a key is begun."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.api import queries
from visp.api.errors import HttpAnswer, json_answer
from visp.controller import letters
from visp.controller.idempotency import keyed
from visp.controller.primitive import Accepted, Answer, Finished, Refused
from visp.entitlement.rights import check_owner
from visp.entity.activation import parse_id
from visp.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.api.context import Call
    from visp.store.base import Letter

    Begin = Callable[[str | None, Callable[[Answer], None]], bool]

DELAYED, LETTERS = "delayed", "deadletters"
IDEMPOTENCY_KEY = "idempotency-key"


async def begun(call: Call, body: bytes, begin: Begin, *, is_blocking: bool) -> Answer | None:
    """The answer of what `begin` begins, once for each idempotency key; None when there is nothing to do.

    `begin` is given the id that was promised, None for any, and who hears of the answer; false when there is nothing
    to do.
    """
    key = call.request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return await _answered(begin, None)
    services = call.services
    shape = "&".join(f"{name}={value}" for name, value in sorted(call.query.items()))
    asked = keyed(call.identity, f"{call.request.method} {call.request.scope['path']}?{shape}", key, body)

    async def once(id: str) -> Answer:
        answer = await _answered(begin, id)
        if answer is None:
            raise _Nothing()
        if isinstance(answer, Refused):
            raise answer.error
        return answer

    try:
        answer = await services.idempotency.answer(call.identity, asked, services.invoke.new_id, once)
    except _Nothing:
        return None
    return Accepted(answer.head.id) if isinstance(answer, Finished) and not is_blocking else answer


class _Nothing(BadRequest):
    """There was nothing to begin, so nothing is promised."""

    def __init__(self) -> None:
        super().__init__("")


async def _answered(begin: Begin, id: str | None) -> Answer | None:
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def settle(answer: Answer) -> None:
        if not answered.done():  # the caller may have gone
            answered.set_result(answer)

    return await answered if begin(id, settle) else None


def due_ms(call: Call, *, is_blocking: bool = False) -> int | None:
    """When the request is to be begun, None: at once. Raises `RequestError`."""
    due = queries.due_ms(call.query, call.received_ms)
    if due is None:
        return None
    if is_blocking:
        raise BadRequest(wording.DELAYED_AND_BLOCKING)
    call.services.later.check_room(call.identity)
    return due


# ── what is due later ───────────────────────────────────────────────────────────────────────────────────────────


async def list_delayed(call: Call) -> HttpAnswer:
    """What was accepted and is not due yet, the next one first."""
    check_owner(call.identity, call.namespace, call.namespace)
    page = queries.page(call.query, DELAYED)
    found = await call.services.delayed.of(call.namespace)
    if page.is_count:
        return json_answer({DELAYED: max(0, len(found) - page.skip)})
    return json_answer(found[page.skip : page.skip + page.limit])


async def cancel_delayed(call: Call) -> HttpAnswer:
    """Cancels it: its record says so."""
    id = parse_id(call.segment("id"))
    check_owner(call.identity, call.namespace, f"{call.namespace}/{id}")
    cancelled = await call.services.delayed.cancel(call.namespace, id)
    if cancelled is None:
        raise NotFound()
    return json_answer(cancelled)


# ── dead letters ────────────────────────────────────────────────────────────────────────────────────────────────


async def list_letters(call: Call) -> HttpAnswer:
    """Activations that failed for good, the newest first."""
    check_owner(call.identity, call.namespace, call.namespace)
    page = queries.page(call.query, LETTERS)
    store = call.services.promises
    if page.is_count:
        return json_answer({LETTERS: max(0, await store.count_letters(call.namespace) - page.skip)})
    found = await store.letters(call.namespace, page.skip, page.limit)
    return json_answer([letters.render(letter) for letter in found])


async def get_letter(call: Call) -> HttpAnswer:
    return json_answer(letters.render(await _found(call)))


async def drop_letter(call: Call) -> HttpAnswer:
    letter = await _found(call)
    await call.services.promises.drop_letter(call.namespace, letter.id)
    return json_answer(letters.render(letter))


async def replay_letter(call: Call) -> HttpAnswer:
    """Runs the activation anew, as a first attempt; the letter goes once that is accepted."""
    letter = await _found(call)
    message = letters.run_of(letter)
    services = call.services
    await services.invoke.obtain(call.identity)
    services.invoke.charge(call.identity)
    resolved = await services.resolver.resolve(call.identity, letters.name_of(message))
    await services.resolver.check_parts(call.identity, resolved.action)
    answer = await _answered(
        lambda _, then: services.invoke.replay(call.identity, resolved.action, message, call.transid, then), None
    )
    if isinstance(answer, Refused):
        raise answer.error
    assert isinstance(answer, Accepted)
    await services.promises.drop_letter(call.namespace, letter.id)
    return HttpAnswer(202, msgspec.json.encode({"activationId": answer.id}), "application/json")


async def _found(call: Call) -> Letter:
    id = parse_id(call.segment("id"))
    check_owner(call.identity, call.namespace, f"{call.namespace}/{id}")
    letter = await call.services.promises.letter(call.namespace, id)
    if letter is None:
        raise NotFound()
    return letter
