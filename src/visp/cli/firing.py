"""Many fires from here: batches of lines that are sent until each is answered, and taken up where they were cut off.

Each fire has a key and each batch a number, so the server knows what was fired: a batch whose answer was lost is sent
again, and a command that is begun again goes on behind the last batch that the server has seen.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from visp.cli import output
from visp.cli.exits import CommandError
from visp.cli.progress import Progress
from visp.client import documents
from visp.client.errors import ApiError, ClientError, NoConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from visp.cli.session import Session
    from visp.entity.names import FullyQualifiedName

BATCH_LINES = 1_000
BATCH_BYTES = 16 * 1024 * 1024
PATIENCE_S = 120.0
"""How long the same batch is tried again while nothing of it gets on."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0
TOLD_MOST = 10
"""Lines that are refused and told one by one; of the rest their number is."""

BUSY = frozenset({429, 503, 507})
"""What is worth trying again."""


class Fire(msgspec.Struct, frozen=True):
    """One fire: `key` tells it from all others of its source, `name` tells its user which it is."""

    key: str
    value: bytes
    name: str


class Chunk(msgspec.Struct, frozen=True):
    """The fires of one batch. Of two batches the later has the larger number, or the same."""

    number: int
    fires: list[Fire]


class Tally(msgspec.Struct):
    """What came of them; `resumed` is the number of the batch that was gone on with, None at a beginning."""

    fired: int = 0
    idle: int = 0
    """For which no rule was active."""
    refused: int = 0
    sent_bytes: int = 0
    resumed: int | None = None


def chunks_of(fires: Iterator[Fire], number_of: Callable[[int, Fire], int]) -> Iterator[Chunk]:
    """Batches of fires; `number_of` is told how many came before and which fire is its first."""
    held: list[Fire] = []
    size = count = 0
    for fire in fires:
        if len(held) == BATCH_LINES or (held and size + len(fire.value) > BATCH_BYTES):
            yield Chunk(number_of(count, held[0]), held)
            count, held, size = count + 1, [], 0
        held.append(fire)
        size += len(fire.value)
    if held:
        yield Chunk(number_of(count, held[0]), held)


def send(
    session: Session,
    trigger: FullyQualifiedName,
    source: str,
    chunks: Callable[[int | None], Iterator[Chunk]],
    hear: Callable[[bytes], None] | None = None,
) -> Tally:
    """Fires all of `chunks(None)`; of a source that got further before, `chunks(number)`, which begins with that one.

    `hear` is given each answer of the server. Raises what the client raises, and `CommandError` when the server is busy
    for too long: begun again it goes on.
    """
    tally, progress = Tally(), Progress()
    try:
        for chunk in chunks(None):
            _send(session, trigger, source, chunk, tally, hear)
            progress(f"lines/{tally.fired + tally.idle + tally.refused}", tally.sent_bytes)
    except ApiError as error:
        newest = error.newest_batch
        if newest is None or tally.fired + tally.idle:
            raise
        tally.resumed = newest
        for chunk in chunks(newest):
            _send(session, trigger, source, chunk, tally, hear)
            progress(f"lines/{tally.fired + tally.idle + tally.refused}", tally.sent_bytes)
    finally:
        progress.end()
    return tally


def shown(answer: bytes) -> None:
    """Prints an answer of the server as it came."""
    output.line(answer.decode(errors="replace"))


def told(tally: Tally, trigger: FullyQualifiedName, what: str, *, is_quiet: bool = False) -> None:
    """Says what came of it, nothing else on standard output if `is_quiet`.

    Raises `CommandError` when something was refused.
    """
    if tally.idle:
        output.note(f"for {tally.idle} no rule was active: nothing was started")
    if tally.refused:
        raise CommandError(f"{tally.refused} of {tally.refused + tally.fired + tally.idle} {what} were refused")
    counted = "" if tally.resumed is None else "; those of the batch that was cut off are counted, fired before or now"
    output.ok(f"triggered /{trigger.id} {tally.fired} times{counted}", is_error=is_quiet)


def _send(
    session: Session,
    trigger: FullyQualifiedName,
    source: str,
    chunk: Chunk,
    tally: Tally,
    hear: Callable[[bytes], None] | None,
) -> None:
    """One batch, until each of its lines is fired or refused for good."""
    left = chunk.fires
    pause_s, tried_s = FIRST_PAUSE_S, time.monotonic()
    while left:
        lines = b"".join(_line(fire) for fire in left)
        trouble: ClientError | None = None
        answers: Sequence[bytes] = ()
        try:
            answers = session.client.fire_lines(trigger, lines, f"{source}/{chunk.number}")
        except NoConnection as error:
            trouble = error
        except ApiError as error:
            if error.status not in BUSY:
                raise
            trouble = error
        if trouble is None and len(answers) != len(left):
            raise CommandError("the server did not answer each line: it does not know fires in lines")
        again = [fire for fire, answer in zip(left, answers, strict=False) if not _settle(fire, answer, tally, hear)]
        if trouble is None and len(again) < len(left):
            pause_s, tried_s = FIRST_PAUSE_S, time.monotonic()
        if trouble is None:
            tally.sent_bytes += len(lines)
            left = again
        if not left:
            return
        if time.monotonic() - tried_s > PATIENCE_S:
            raise trouble or CommandError("the server takes no more for now: the same command goes on with the rest")
        time.sleep(pause_s)
        pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


def _line(fire: Fire) -> bytes:
    return b'{"key":%b,"value":%b}\n' % (msgspec.json.encode(fire.key), fire.value.translate(_ONE_LINE))


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def _settle(fire: Fire, answer: bytes, tally: Tally, hear: Callable[[bytes], None] | None) -> bool:
    """Whether there is nothing more to do for a fire."""
    document: Any = documents.value(answer)
    status = documents.whole(document, "status")
    if status in BUSY:
        return False
    if hear is not None:
        hear(answer)
    if documents.text(document, "activationId"):
        tally.fired += 1
    elif status == 204:
        tally.idle += 1
    else:
        refuse(tally, fire.name, documents.text(document, "error") or "refused")
    return True


def refuse(tally: Tally, name: str, why: str) -> None:
    tally.refused += 1
    if tally.refused <= TOLD_MOST:
        output.error(f"{name}: {' '.join(why.split())}")
