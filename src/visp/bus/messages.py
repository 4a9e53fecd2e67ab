"""What roles say to one another. Frozen, small, encodable; the memory bus passes them as they are."""

from __future__ import annotations

from typing import Final

import msgspec

from visp.entity.activation import ActivationHead


class ActivationMessage(msgspec.Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """Run this action once.

    `action` is the id `ns[/pkg]/name` of the action that runs (a binding already resolved), `revision` the stored
    revision at acceptance: the invoker runs the newest. `content` is the merged argument, JSON on one line.
    `received_ms` is when the request came, or when a component was dispatched. `is_accepted`: the ledger holds it, so
    its `started` must be synced before the run line goes out.
    """

    id: str
    transid: str
    namespace: str
    namespace_uuid: str
    subject: str
    action: str
    revision: int
    content: bytes
    received_ms: int
    is_accepted: bool = False
    is_blocking: bool = False
    cause: str | None = None
    binding: str | None = None


class ResultAck(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The outcome of an activation; its record is in the ledger.

    `error`, when set, says that the record could *not* be written (disk full): the caller must not be given the id.
    `is_complete`: its logs are in the record too, so its place is free; else a `CompletionAck` follows.
    """

    head: ActivationHead
    result: bytes
    error: str | None = None
    is_complete: bool = False


class CompletionAck(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The rest of an activation's logs has come after its result: its place is free."""

    id: str


class Detached(msgspec.Struct, frozen=True, array_like=True):
    """The caller of this activation stopped waiting and was given its id: from now on it is accepted work.

    Its `accepted` entry is in the ledger's buffer already; an invoker that has sent the run line writes `started`
    behind it.
    """

    id: str


WARM_LIMIT = 1_000


class Ping(msgspec.Struct, frozen=True, array_like=True):
    """An invoker lives: its id, its memory for containers, what of it is in use, and how many activations wait.

    `warm`: actions with an idle container, `WARM_LIMIT` of them at most.
    """

    invoker: int
    memory_mb: int
    used_mb: int
    waiting: int
    warm: tuple[str, ...] = ()


class EntityChanged(msgspec.Struct, frozen=True, array_like=True):
    """The document `id` was written (`revision`) or deleted (0): caches drop what they hold of it."""

    id: str
    revision: int


Message = ActivationMessage | ResultAck | CompletionAck | Detached | Ping | EntityChanged

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ActivationMessage)

_KINDS: Final = (ActivationMessage, ResultAck, CompletionAck, Detached, Ping, EntityChanged)
_TAGS: Final = {kind: bytes([tag]) for tag, kind in enumerate(_KINDS)}
_DECODERS: Final[tuple[msgspec.msgpack.Decoder[Message], ...]] = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)


def encode(message: Message) -> bytes:
    """Any message for a network: a byte that says which, and its msgpack."""
    return _TAGS[type(message)] + _encoder.encode(message)


def decode(data: bytes) -> Message:
    """Raises `msgspec.DecodeError` for what `encode` did not make."""
    if not data or data[0] >= len(_DECODERS):
        raise msgspec.DecodeError("no kind of message")
    return _DECODERS[data[0]].decode(memoryview(data)[1:])


def encode_activation(message: ActivationMessage) -> bytes:
    """The form that the ledger carries."""
    return _encoder.encode(message)


def decode_activation(data: bytes) -> ActivationMessage:
    """Raises `msgspec.DecodeError` for what `encode_activation` did not make."""
    return _decoder.decode(data)
