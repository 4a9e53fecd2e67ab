"""What follows from an activation: of a failure another attempt or, when none is left, a dead letter; of the last one a
call of its web hook. Pure.

Annotations of a rule or an action say so, the rule's first, and then an operator's defaults for a namespace: `retry` is
`{"attempts": 3, "backoff_ms": 1000, "max_backoff_ms": 60000, "on": ["internal", …]}`, `dead-letter` the name of a
trigger or an action of the same namespace, or `true` for the list of dead letters alone, `completion-hook` what
`entity/hook.py` says.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from visp import wording
from visp.entity.activation import Status
from visp.entity.hook import COMPLETION_HOOK, Hook, parse_hook
from visp.entity.names import CALLERS_NAMESPACE, is_name, split_path
from visp.errors import BadRequest

if TYPE_CHECKING:
    from visp.entity.parameters import Parameters

RETRY, DEAD_LETTER = "retry", "dead-letter"
ANNOTATIONS = frozenset({RETRY, DEAD_LETTER, COMPLETION_HOOK})
ATTEMPTS_LIMIT = 100
BACKOFF_LIMIT_MS = 86_400_000

Failure = Literal["application", "developer", "internal"]
_STATUS: dict[Failure, Status] = {
    "application": Status.APPLICATION_ERROR,
    "developer": Status.DEVELOPER_ERROR,
    "internal": Status.INTERNAL_ERROR,
}
_Backoff = Annotated[int, msgspec.Meta(ge=1, le=BACKOFF_LIMIT_MS)]


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`attempts` counts the first run too. Before attempt n + 1 it waits `backoff_ms` × 2ⁿ⁻¹, `max_backoff_ms` at most,
    and draws from the upper half of that; it is made after an outcome that `on` names.
    """

    attempts: Annotated[int, msgspec.Meta(ge=1, le=ATTEMPTS_LIMIT)] = 3
    backoff_ms: _Backoff = 1_000
    max_backoff_ms: _Backoff = 60_000
    on: Annotated[tuple[Failure, ...], msgspec.Meta(min_length=1)] = ("application", "developer", "internal")


class Follow(msgspec.Struct, frozen=True, kw_only=True):
    """What an activation carries with it. `retry` None: one attempt. `dead_letter` None: a failure ends there.

    `dead_letter` is the id of what hears of it, empty for nobody. `attempt` counts from 1, and `first` is the id of
    the first one, None for the first itself.
    """

    retry: RetryPolicy | None = None
    dead_letter: str | None = None
    attempt: int = 1
    first: str | None = None
    hook: Hook | None = None

    def is_failure(self, status: int) -> bool:
        """Whether this outcome is one that something follows from."""
        on = RetryPolicy().on if self.retry is None else self.retry.on
        return any(_STATUS[name] == status for name in on)

    def has_another(self, status: int) -> bool:
        """Whether the outcome is followed by another attempt."""
        return self.retry is not None and self.attempt < self.retry.attempts and self.is_failure(status)


def backoff_ms(policy: RetryPolicy, attempt: int, draw: float) -> int:
    """How long to wait after this attempt; `draw` is from 0 to 1, so that those who failed together do not return
    together.
    """
    whole = min(policy.max_backoff_ms, policy.backoff_ms << min(attempt - 1, 40))
    return round(whole * (0.5 + draw / 2))


def following_id(id: str, what: str) -> str:
    """The id of what follows from an activation: the same whenever it is asked, so that nothing follows twice.

    It lies in the same shard's ledger.
    """
    return id[:14] + hashlib.sha256(f"{what}:{id}".encode()).hexdigest()[:18]


def parse(annotations: Parameters, namespace: str) -> Follow | None:
    """What the annotations ask for, None for nothing; raises `BadRequest` for what cannot be meant."""
    retry, letter, hook = (annotations.get(name) for name in (RETRY, DEAD_LETTER, COMPLETION_HOOK))
    if retry is None and letter is None and hook is None:
        return None
    return Follow(
        retry=None if retry is None else parse_retry(bytes(retry.value)),
        dead_letter=None if letter is None else _parse_letter(bytes(letter.value), namespace),
        hook=None if hook is None else parse_hook(bytes(hook.value)),
    )


def parse_retry(value: bytes) -> RetryPolicy | None:
    """Raises `BadRequest`; JSON's `null` and `false` ask for none."""
    if value in (b"null", b"false"):
        return None
    try:
        return msgspec.json.decode(value, type=RetryPolicy)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(wording.bad_retry(str(error))) from None


def _parse_letter(value: bytes, namespace: str) -> str | None:
    """`/ns/name`, `/_/pkg/name`, `pkg/name` or `name`, in this namespace; `true` for nobody."""
    if value in (b"null", b"false"):
        return None
    if value == b"true":
        return ""
    try:
        text = msgspec.json.decode(value, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest(wording.BAD_DEAD_LETTER) from None
    names = split_path(text)
    if text.startswith("/") and names and names[0] in (CALLERS_NAMESPACE, namespace):
        names = names[1:]
    elif text.startswith("/"):
        raise BadRequest(wording.BAD_DEAD_LETTER)
    if not 1 <= len(names) <= 2 or not all(is_name(name) for name in names):
        raise BadRequest(wording.BAD_DEAD_LETTER)
    return "/".join((namespace, *names))


def merged(*asked: Follow | None) -> Follow | None:
    """The first that says something about a retry, and the first about a dead letter, and about a hook."""
    said = [one for one in asked if one is not None]
    retry = next((one.retry for one in said if one.retry is not None), None)
    letter = next((one.dead_letter for one in said if one.dead_letter is not None), None)
    hook = next((one.hook for one in said if one.hook is not None), None)
    if retry is None and letter is None and hook is None:
        return None
    return Follow(retry=retry, dead_letter=letter, hook=hook)
