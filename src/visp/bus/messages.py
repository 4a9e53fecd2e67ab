"""What roles say to one another. Frozen, small, encodable; the memory bus passes them as they are."""

from __future__ import annotations

from typing import Final

import msgspec

from visp.entity.activation import ActivationHead
from visp.entity.execs import BlackboxExec, CodeExec
from visp.entity.follow import Follow
from visp.entity.hook import Hook
from visp.entity.keeping import Keep
from visp.entity.limits import AnswerLimits


class ActivationMessage(msgspec.Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """Run this action once.

    `action` is the id `ns[/pkg]/name` of the action that runs (a binding already resolved), `revision` the stored
    revision at acceptance: the invoker runs the newest. `content` is the merged argument, JSON on one line.
    `received_ms` is when the request came, or when a component was dispatched. `is_accepted`: the ledger holds it, so
    its `started` must be synced before the run line goes out. `init` names those parameters of its package that are
    given at initialisation only, `locked` those whose values are locked, with their schemes. `keep` says whether its
    record is kept, `answers` bounds its answer (None: as the platform does). `unfit` is why it cannot be run: its
    limits are not its namespace's any more. `is_streamed`: parts of its result are sent to who asked for it.
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
    follow: Follow | None = None
    init: tuple[str, ...] = ()
    locked: tuple[tuple[str, str], ...] = ()
    keep: Keep = "all"
    answers: AnswerLimits | None = None
    unfit: str | None = None
    is_streamed: bool = False


class FireMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Fire this trigger (its id) for a namespace, once its time has come: `id` is that of its record."""

    id: str
    transid: str
    namespace: str
    namespace_uuid: str
    subject: str
    trigger: str
    content: bytes
    headers: dict[str, str]
    received_ms: int
    is_forced: bool = False


class LetterMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """An activation has failed for good: keep the letter, and tell `target` (an entity's id, empty for nobody).

    `run` is the message of the last attempt, `status` and `result` what it came to, `at_ms` when.
    """

    id: str
    run: ActivationMessage
    status: int
    result: bytes
    at_ms: int
    target: str

    @property
    def namespace(self) -> str:
        return self.run.namespace

    @property
    def namespace_uuid(self) -> str:
        return self.run.namespace_uuid


class HookMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Tell this hook what `activation` came to at `at_ms`."""

    id: str
    namespace: str
    namespace_uuid: str
    activation: str
    hook: Hook
    at_ms: int


class StepMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How far an accepted composite has come: what a start goes on with. It takes the place of `run` in the ledger.

    Component number `index` is being run as activation `part` (empty: it has not begun) with `input`. Before that the
    composite came to `ids`, `duration_ms` and `memory_mb`, and with what it nests in to `atomic` runs of actions. Of a
    conductor `component` is the id of the action that runs (empty: itself, for the `turns`th time), and `state` what it
    is told again; None of a sequence.
    """

    run: ActivationMessage
    index: int
    part: str
    input: bytes
    ids: tuple[str, ...]
    duration_ms: int
    memory_mb: int | None
    atomic: int
    start_ms: int
    turns: int = 0
    component: str = ""
    state: bytes | None = None

    @property
    def id(self) -> str:
        return self.run.id


class Deferred(msgspec.Struct, frozen=True, array_like=True):
    """Work that the ledger holds and nobody has begun: `task` is encoded as there, `due_ms` when it may begin."""

    id: str
    task: bytes
    due_ms: int


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


class Part(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A part of the result of an activation under way, in the order in which they came: JSON, or `:` and base64."""

    id: str
    data: bytes


class Credit(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Whoever reads an activation's parts has taken so much of them; None: nobody reads them any more."""

    id: str
    count_bytes: int | None


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


class FeedChanged(msgspec.Struct, frozen=True, array_like=True):
    """The feed of this trigger was made, changed or dropped."""

    namespace: str
    trigger: str


class Provide(msgspec.Struct, frozen=True, array_like=True):
    """So many containers of this action (its id) are to be ready, as if `run` had been; 0 without it: none any more."""

    action: str
    count: int
    run: ActivationMessage | None = None


class BuildMessage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Make this code ready for its first container; large code is in the store already.

    `id` is the sender's word for it. `is_heard`: somebody waits, and is told how it goes on.
    """

    id: int
    namespace: str
    exec: CodeExec | BlackboxExec
    is_heard: bool


class BuildProgress(msgspec.Struct, frozen=True, array_like=True):
    """A line that a build's programs printed."""

    id: int
    line: str


class BuildResult(msgspec.Struct, frozen=True, array_like=True):
    """The code is ready; or why it is not: `refusal` is for its developer, `failure` is the platform's."""

    id: int
    refusal: str | None = None
    failure: str | None = None


Message = (
    ActivationMessage
    | ResultAck
    | CompletionAck
    | Detached
    | Ping
    | EntityChanged
    | Deferred
    | Provide
    | FeedChanged
    | Part
    | Credit
    | BuildMessage
    | BuildProgress
    | BuildResult
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ActivationMessage)

_KINDS: Final = (
    *(ActivationMessage, ResultAck, CompletionAck, Detached, Ping, EntityChanged, Deferred, Provide),
    *(Part, Credit),
    *(BuildMessage, BuildProgress, BuildResult),
    FeedChanged,
)
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


Task = ActivationMessage | FireMessage | LetterMessage | StepMessage | HookMessage
"""What the ledger holds as work."""

_TASKS: Final = {1: FireMessage, 2: LetterMessage, 3: StepMessage, 4: HookMessage}
_TASK_TAGS: Final = {kind: bytes([tag]) for tag, kind in _TASKS.items()}


def encode_task(task: Task) -> bytes:
    """The form that the ledger carries: an activation as it is, others behind a byte that no activation begins with."""
    return _TASK_TAGS.get(type(task), b"") + _encoder.encode(task)


def decode_task(data: bytes) -> Task:
    """Raises `msgspec.DecodeError` for what `encode_task` did not make."""
    kind = _TASKS.get(data[0]) if data else None
    if kind is None:
        return _decoder.decode(data)
    task: Task = msgspec.msgpack.decode(memoryview(data)[1:], type=kind)
    return task
