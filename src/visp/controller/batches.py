"""Many fires of a trigger at once: a line each, accepted together, and of a batch that comes again each key once.

A source of events that must be fired once numbers its batches. Of the newest batch each key is promised an id before it
is fired, so that a batch that comes again, whole, in part or with more lines, fires what was not fired yet. A source
sends batch N + 1 only when it will not send N again: the keys of N are forgotten then.

    lines ─▶ what is known of their keys ─▶ prepared, counted ─▶ ids promised ─▶ accepted in one turn ─▶ begun
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import msgspec

from visp import wording
from visp.controller.fire import NothingToDo, Prepared
from visp.controller.primitive import Accepted, Answer, Refused
from visp.errors import (
    BadQuery,
    BadRequest,
    Malformed,
    OlderBatch,
    Overloaded,
    RequestError,
    ServiceError,
    Throttled,
    TooLarge,
)
from visp.store.base import Batch
from visp.telemetry import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from visp.clock import Clock
    from visp.controller.fire import Fire, Firing
    from visp.settings import Queue
    from visp.store.base import ActivationStore, BatchStore

LINES_MOST = 10_000
"""Of a request, and keys of a batch."""
BODY_MOST_BYTES = 50 * 1024 * 1024
KEY_LIMIT = 200
SOURCE_LIMIT = 200
NUMBER_MOST = 2**63 - 1

KEPT_MS = 7 * 86_400_000
"""How long the newest batch of a source is known; its fires are known for as long as their records are kept."""
BEGINNING_MS = 5_000
"""How long after a promise its fires are in a ledger, or their server was killed before that."""
SLICE = 50
"""Fires that are prepared, or begun, before others have their turn."""
SWEEP_S = 600.0

Outcome = Accepted | NothingToDo | Refused


class Line(msgspec.Struct, frozen=True):
    """One fire. `key` is None where lines have none; `error` says why it is none."""

    body: bytes
    key: str | None = None
    error: RequestError | None = None


class Numbered(msgspec.Struct, frozen=True):
    """Which batch of which source it is."""

    source: str
    number: int


class _Keyed(msgspec.Struct):
    key: str
    value: msgspec.Raw


_decode_keyed = msgspec.json.Decoder(_Keyed).decode


def parse_lines(body: bytes, *, is_keyed: bool) -> list[Line]:
    """The lines of a body; blank ones are none. Raises `TooLarge`; what is wrong with a line is its own affair."""
    if body.count(b"\n") > LINES_MOST:
        raise TooLarge(wording.too_many_lines(LINES_MOST))
    texts = [text for text in map(bytes.strip, body.split(b"\n")) if text]
    if len(texts) > LINES_MOST:
        raise TooLarge(wording.too_many_lines(LINES_MOST))
    return [_keyed(text) for text in texts] if is_keyed else [Line(text) for text in texts]


def _keyed(text: bytes) -> Line:
    try:
        line = _decode_keyed(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Line(b"", None, Malformed(wording.KEYED_LINE))
    if not 1 <= len(line.key) <= KEY_LIMIT:
        return Line(b"", None, BadRequest(wording.bad_event_key(KEY_LIMIT)))
    return Line(bytes(line.value), line.key)


def parse_batch(text: str | None) -> Numbered | None:
    """`SOURCE/N` of a query; raises `BadQuery`."""
    if text is None:
        return None
    source, slash, digits = text.rpartition("/")
    is_number = digits.isascii() and digits.isdecimal() and len(digits) <= len(str(NUMBER_MOST))
    if not slash or not 1 <= len(source) <= SOURCE_LIMIT or not is_number or int(digits) > NUMBER_MOST:
        raise BadQuery("batch", wording.bad_batch(SOURCE_LIMIT))
    return Numbered(source, int(digits))


class Batches:
    """Fires lines; the one place that knows what was promised to the newest batch of a source."""

    def __init__(
        self,
        *,
        fire: Fire,
        promises: BatchStore,
        activations: ActivationStore,
        clock: Clock,
        limits: Queue,
    ) -> None:
        self._fire = fire
        self._promises = promises
        self._activations = activations
        self._clock = clock
        self._limits = limits
        self._under_way: set[bytes] = set()

    async def fire(self, firing: Firing, lines: Sequence[Line], numbered: Numbered | None = None) -> list[Outcome]:
        """What each line came to, in their order; the body of `firing` is theirs.

        A key that comes twice is fired once. Raises `OlderBatch` for a batch that is over, `Overloaded` for one that is
        being fired, `BadRequest` and `Throttled` for too many keys, and `ServiceError`: then nothing was fired.
        """
        if numbered is None:
            return await self._settled(lines, await self._prepared(firing, lines, {}))
        name = (firing.identity.namespace_uuid, firing.trigger.name.name, numbered.source)
        scope = hashlib.sha256("\0".join(name).encode()).digest()
        if scope in self._under_way:
            raise Overloaded(wording.BATCH_IN_FLIGHT, 1)
        self._under_way.add(scope)
        try:
            return await self._once(msgspec.structs.replace(firing, is_recorded=True), lines, numbered.number, scope)
        finally:
            self._under_way.discard(scope)

    async def _once(self, firing: Firing, lines: Sequence[Line], number: int, scope: bytes) -> list[Outcome]:
        held = await self._promises.batch(scope)
        if held is not None and held.number > number:
            raise OlderBatch(wording.older_batch(number, held.number), held.number)
        ids = held.ids if held is not None and held.number == number else {}
        known = {} if held is None or not ids else await self._known(firing, lines, held)
        found = await self._prepared(firing, lines, known)
        try:
            fresh = {
                digest_of(key): one.record.head.id
                for line, one in zip(lines, found, strict=True)
                if isinstance(one, Prepared) and (key := line.key) is not None
            }
            if fresh or held is None or held.number != number:
                await self._promise(firing, scope, held, Batch(number=number, at_ms=0, ids=ids | fresh))
        except BaseException:
            self._release(found)
            raise
        return await self._settled(lines, found)

    async def _known(self, firing: Firing, lines: Sequence[Line], held: Batch) -> dict[str, Outcome]:
        """Of keys that were promised an id: that they were fired, or may be just now by another shard."""
        is_beginning = 0 <= self._clock.now_ms() - held.at_ms < BEGINNING_MS
        known: dict[str, Outcome] = {}
        for key in {line.key for line in lines if line.key is not None}:
            id = held.ids.get(digest_of(key))
            if id is None:
                continue
            namespace = firing.identity.namespace
            if await self._activations.is_open(id) or await self._activations.get(namespace, id) is not None:
                known[key] = Accepted(id)
            elif is_beginning:
                known[key] = Refused(Overloaded(wording.BATCH_IN_FLIGHT, 1))
        return known

    async def _promise(self, firing: Firing, scope: bytes, held: Batch | None, batch: Batch) -> None:
        """Raises when it cannot be, or somebody else was first. What it promises is to be accepted at once."""
        if len(batch.ids) > LINES_MOST:
            raise BadRequest(wording.too_many_batch_keys(LINES_MOST))
        begun_s, limit = self._clock.monotonic_s(), self._limits.idempotency_keys
        revision = 0 if held is None else held.revision
        own = msgspec.structs.replace(batch, at_ms=self._clock.now_ms(), revision=revision)
        is_put = await self._promises.put_batch(scope, firing.identity.namespace, own, limit)
        if is_put is None:
            raise Throttled(wording.too_many_keys(limit))
        if not is_put or self._clock.monotonic_s() - begun_s > BEGINNING_MS / 2000:
            raise Overloaded(wording.BATCH_IN_FLIGHT, 1)  # else another shard might take it for one that was killed

    # ── the lines ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _prepared(
        self, firing: Firing, lines: Sequence[Line], known: dict[str, Outcome]
    ) -> list[Outcome | Prepared]:
        """Each line as far as it goes before it is accepted; of a key's lines the first counts. Others may run between.

        Raises `ServiceError`, and has let go of everything then.
        """
        found: list[Outcome | Prepared] = []
        first: dict[str, Outcome | Prepared] = dict(known)
        try:
            for number, line in enumerate(lines, 1):
                if line.key is not None and line.key in first:
                    found.append(first[line.key])
                    continue
                found.append(await self._line(firing, line))
                if line.key is not None:
                    first[line.key] = found[-1]
                if number % SLICE == 0:
                    await asyncio.sleep(0)
        except BaseException:
            self._release(found)
            raise
        return found

    async def _line(self, firing: Firing, line: Line) -> Outcome | Prepared:
        fire, identity, trigger = self._fire, firing.identity, firing.trigger
        try:
            if not fire.reserve(identity, trigger):
                await fire.obtain(identity)
                await fire.obtain(identity, trigger)
            fire.charge(identity)
            if line.error is not None:
                raise line.error
            return fire.prepare(msgspec.structs.replace(firing, body=line.body))
        except (RequestError, ServiceError) as error:
            return Refused(error)

    def _release(self, found: Sequence[Outcome | Prepared]) -> None:
        for one in _each(found):
            self._fire.release(one)

    async def _settled(self, lines: Sequence[Line], found: Sequence[Outcome | Prepared]) -> list[Outcome]:
        """Accepts all that was prepared in this turn of the loop: one write, one sync."""
        loop = asyncio.get_running_loop()
        answers: dict[str, Answer] = {}
        waiting = list(_each(found))
        done: asyncio.Future[None] = loop.create_future()

        def settle(id: str, answer: Answer) -> None:
            answers[id] = answer
            if len(answers) == len(waiting) and not done.done():
                done.set_result(None)

        for one in waiting:
            id = one.record.head.id
            self._fire.accept(one, lambda answer, id=id: settle(id, answer))  # type: ignore[misc]
        await self._begun(waiting, answers)
        if waiting:
            await done
        return [_outcome(answers[one.record.head.id]) if isinstance(one, Prepared) else one for one in found]

    async def _begun(self, waiting: Sequence[Prepared], answers: dict[str, Answer]) -> None:
        """Publishes what was accepted, a slice in each turn; all of it, whatever becomes of the caller."""
        left = iter(waiting)
        try:
            for number, one in enumerate(left, 1):
                self._publish(one, answers)
                if number % SLICE == 0:
                    await asyncio.sleep(0)
        finally:
            for one in left:
                self._publish(one, answers)

    def _publish(self, one: Prepared, answers: dict[str, Answer]) -> None:
        if not isinstance(answers.get(one.record.head.id), Refused):
            self._fire.publish(one)

    async def sweep(self) -> None:
        """Forgets batches of sources that have sent nothing for long; runs as long as the server does."""
        while True:
            await self._clock.sleep(SWEEP_S)
            try:
                await self._promises.sweep_batches(self._clock.now_ms() - KEPT_MS)
            except ServiceError as error:
                log.warning("batches.not_swept", reason=str(error))


def digest_of(key: str) -> bytes:
    """As which a key is kept."""
    return hashlib.sha256(key.encode()).digest()[:16]


def _each(found: Sequence[Outcome | Prepared]) -> list[Prepared]:
    """What was prepared, each once."""
    return list({one.record.head.id: one for one in found if isinstance(one, Prepared)}.values())


def _outcome(answer: Answer) -> Outcome:
    assert isinstance(answer, Accepted | Refused)
    return answer
