"""An activation: one run of an action, a sequence or a trigger, and what came of it.

A record is kept as a head (small, typed), the raw result (the bytes that the container answered, never decoded) and the
log lines; `render` makes the wire form of it. Source: Apache OpenWhisk's activation documents.
"""

from __future__ import annotations

import secrets
from enum import IntEnum
from functools import lru_cache

import msgspec

from visp import wording
from visp.entity.limits import ActionLimits
from visp.errors import BadName

ID_LENGTH = 32
_RANDOM_BYTES = 9
_DRAWN_AT_ONCE = 256
_REMEMBERED = 4096


class Status(IntEnum):
    """The four outcomes (`response.statusCode`)."""

    SUCCESS = 0
    APPLICATION_ERROR = 1
    DEVELOPER_ERROR = 2
    INTERNAL_ERROR = 3


STATUS_WORDS = ("success", "application error", "action developer error", "whisk internal error")


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What a run came to: status, raw JSON result, and the size of the container's raw answer (characters), if it
    gave one.
    """

    status: Status
    result: bytes
    size: int | None = None

    @property
    def is_kept(self) -> bool:
        """Whether the container may be used again: only after a success or an application error."""
        return self.status <= Status.APPLICATION_ERROR


def failure(status: Status, sentence: str, size: int | None = None) -> Outcome:
    """An outcome whose result is `{"error": sentence}`."""
    return Outcome(status, b'{"error":' + msgspec.json.encode(sentence) + b"}", size)


class Phases(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """When an activation of an action reached each phase; None where it never did. All numbers are microseconds.

    They count from the moment the request was received (for a component: from its dispatch). Within one process they
    come from one monotonic clock; how long before `queued` that moment was is known from wall clocks in milliseconds,
    and no more than is certain is counted: a way to the invoker of less than two of them shows as 0.

    `queued`: the invoker has it. `placed`: a container was chosen, or begun for it. `created`: the container made for
    it is up (None: there was one). `initialised`: it has the code. `run`: the run line went out. `answered`: the
    answer, or what ended the run, came. `logs`: what it printed is complete, which may be after `stored`. `stored`:
    the record was handed to the ledger's next write, which follows in the same turn of the loop: a record cannot know
    when it was written.

    `cold` is why it found no warm container, None when it did.
    """

    queued: int
    placed: int
    created: int | None
    initialised: int | None
    run: int | None
    answered: int | None
    logs: int | None
    stored: int
    cold: str | None = None


PHASES = Phases.__struct_fields__[:-1]
"""Their names, in the order in which they are reached (but for logs that come late)."""


class ActivationHead(msgspec.Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """Everything in a record but its result and logs.

    `path` is `ns[/pkg]/name` of the action that ran (None for a trigger); `namespace` the one that invoked it.
    `retry_of` is the id of the first attempt and `attempt` the number of this one, both None in the first.
    `end_ms` is 0 and `duration_ms` None for a trigger. `is_timeout` is None for what is no ordinary action, and so is
    `phases`, as in every record that was written before there were any. New fields go to the end: records are kept.
    """

    id: str
    namespace: str
    subject: str
    name: str
    version: str
    start_ms: int
    end_ms: int = 0
    duration_ms: int | None = None
    status: int = 0
    size: int | None = None
    path: str | None = None
    kind: str | None = None
    limits: ActionLimits | None = None
    wait_ms: int | None = None
    init_ms: int | None = None
    is_timeout: bool | None = None
    cause: str | None = None
    is_topmost: bool | None = None
    is_conductor: bool = False
    binding: str | None = None
    phases: Phases | None = None
    retry_of: str | None = None
    attempt: int | None = None


class ActivationRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A head, the raw JSON result (never empty) and the log entries as they are shown.

    `has_all_logs` is false while the logs are still being collected: such a record can be read by id, and is not
    listed.
    """

    head: ActivationHead
    result: bytes
    logs: tuple[str, ...] = ()
    has_all_logs: bool = True


def filter_name(head: ActivationHead) -> str:
    """The name that a list's filter compares: `package/name` of an action in a package, else the name.

    Through a binding it is the binding's package, as in OpenWhisk's views.
    """
    if head.path is None:
        return head.name
    if head.binding is not None:
        return f"{head.binding.partition('/')[2]}/{head.name}"
    return head.path.partition("/")[2]


def with_logs(record: ActivationRecord, logs: tuple[str, ...], collected_us: int | None = None) -> ActivationRecord:
    """The record once all its logs are there; `collected_us` is when that was, on the scale of its phases."""
    head = record.head
    if collected_us is not None and head.phases is not None:
        head = msgspec.structs.replace(head, phases=msgspec.structs.replace(head.phases, logs=collected_us))
    return msgspec.structs.replace(record, head=head, logs=logs, has_all_logs=True)


_random: list[str] = []


def new_id(now_ms: int, shard: int = 0) -> str:
    """32 hex digits, ordered by time: 48 bits of milliseconds, 8 of shard, 72 random.

    The random part is drawn in batches: a system call for 256 ids.
    """
    if not _random:
        text = secrets.token_hex(_RANDOM_BYTES * _DRAWN_AT_ONCE)
        _random.extend(text[at : at + 2 * _RANDOM_BYTES] for at in range(0, len(text), 2 * _RANDOM_BYTES))
    return f"{now_ms:012x}{shard:02x}{_random.pop()}"


def shard_of(id: str) -> int:
    """The shard in whose ledger an activation lies."""
    return int(id[12:14], 16)


ADOPTER = 0
"""The shard that keeps what no shard is there for."""


def keeper_of(id: str, shards: int) -> int:
    """The shard that has an activation, of a server of so many."""
    shard = shard_of(id)
    return shard if shard < shards else ADOPTER


def parse_id(text: str) -> str:
    """An activation id from a path; raises `BadName` with OpenWhisk's words."""
    if len(text) != ID_LENGTH:
        raise BadName(wording.activation_id_length(len(text)))
    if not set(text) <= set("0123456789abcdef"):
        raise BadName(wording.ACTIVATION_ID_ILLEGAL)
    return text


_encode = msgspec.json.Encoder().encode


PHASES_KEY = "visp"
"""The one annotation of our own: `{"cold"?: reason, "phases_us": {"queued": 0, "placed": 3, …}}`."""


def render_annotations(head: ActivationHead, *, has_phases: bool = False) -> bytes:
    """The record's `annotations` as JSON, as OpenWhisk orders and omits them.

    `has_phases` adds the annotation of our own. It is left out unless asked for: a record is what OpenWhisk's is.
    """
    if head.path is None:
        return b"[]"
    path, kind, limits, binding = _fixed_annotations(
        head.path, head.kind, head.limits, head.is_topmost, head.is_conductor, head.binding
    )
    out = path
    if head.wait_ms is not None:
        out += b',{"key":"waitTime","value":%d}' % head.wait_ms
    out += kind
    if head.is_timeout is not None:
        out += b',{"key":"timeout","value":true}' if head.is_timeout else b',{"key":"timeout","value":false}'
    out += limits
    if head.init_ms is not None:
        out += b',{"key":"initTime","value":%d}' % head.init_ms
    if head.cause is not None:
        out += b',{"key":"causedBy","value":"sequence"}'
    if head.retry_of is not None:
        out += b"," + _annotation("retryOf", head.retry_of) + b"," + _annotation("attempt", head.attempt)
    if has_phases and head.phases is not None:
        out += b"," + _annotation(PHASES_KEY, _shown_phases(head.phases))
    return out + binding


def _shown_phases(phases: Phases) -> dict[str, object]:
    reached = {name: us for name in PHASES if (us := getattr(phases, name)) is not None}
    cold = {} if phases.cold is None else {"cold": phases.cold}
    return cold | {"phases_us": reached}


@lru_cache(_REMEMBERED)
def _fixed_annotations(
    path: str,
    kind: str | None,
    limits: ActionLimits | None,
    is_topmost: bool | None,
    is_conductor: bool,
    binding: str | None,
) -> tuple[bytes, bytes, bytes, bytes]:
    """What is the same for every run of an action: before `waitTime`, before `timeout`, `limits`, and what closes."""
    topmost = b"" if is_topmost is None else _annotation("topmost", is_topmost) + b","
    conductor = b"," + _annotation("conductor", True) if is_conductor else b""
    return (
        b"[" + topmost + _annotation("path", path),
        conductor + b"," + _annotation("kind", kind or "unknown"),
        b"" if limits is None else b"," + _annotation("limits", limits.render()),
        (b"" if binding is None else b"," + _annotation("binding", binding)) + b"]",
    )


def _annotation(key: str, value: object) -> bytes:
    return _encode({"key": key, "value": value})


def render_response(head: ActivationHead, result: bytes) -> bytes:
    """`response` of a record: `{"result", "size"?, "status", "success"}`."""
    if head.size is None:
        return b'{"result":%b,%b' % (result, _STATUS_TAILS[head.status])
    return b'{"result":%b,"size":%d,%b' % (result, head.size, _STATUS_TAILS[head.status])


_STATUS_TAILS = tuple(
    b'"status":"%b","success":%b}' % (words.encode(), b"true" if code == Status.SUCCESS else b"false")
    for code, words in enumerate(STATUS_WORDS)
)


def render(head: ActivationHead, result: bytes, logs: tuple[str, ...] = (), *, has_phases: bool = False) -> bytes:
    """The full record as compact JSON; `result` is copied into it unread."""
    name, version = _fixed_fields(head.name, head.namespace, head.subject, head.version)
    cause = b"" if head.cause is None else b'"cause":"%b",' % head.cause.encode()
    ended = b"" if head.duration_ms is None else b'"duration":%d,"end":%d,' % (head.duration_ms, head.end_ms)
    return b'{"activationId":"%b","annotations":%b,%b%b"logs":%b,%b%b,"start":%d,%b' % (
        head.id.encode(),
        render_annotations(head, has_phases=has_phases),
        cause,
        ended,
        _encode(logs) if logs else b"[]",
        name,
        render_response(head, result),
        head.start_ms,
        version,
    )


@lru_cache(_REMEMBERED)
def _fixed_fields(name: str, namespace: str, subject: str, version: str) -> tuple[bytes, bytes]:
    """Fields that are the same for every run of an action by one caller, before the response and after `start`."""
    return (
        b'"name":%b,"namespace":%b,"publish":false,"response":' % (_encode(name), _encode(namespace)),
        b'"subject":%b,"version":%b}' % (_encode(subject), _encode(version)),
    )


def summary(head: ActivationHead, *, has_phases: bool = False) -> dict[str, object]:
    """The form of a list without `docs`.

    Here `duration` is `end - start`. A trigger has no end, duration or statusCode.
    """
    out: dict[str, object] = {
        "namespace": head.namespace,
        "name": head.name,
        "version": head.version,
        "publish": False,
        "annotations": msgspec.Raw(render_annotations(head, has_phases=has_phases)),
        "activationId": head.id,
        "start": head.start_ms,
    }
    if head.path is not None:
        out |= {"end": head.end_ms, "duration": head.end_ms - head.start_ms, "statusCode": head.status}
    if head.cause is not None:
        out["cause"] = head.cause
    return out
