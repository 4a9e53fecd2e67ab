"""What visp asks of its stores.

Five ports: `EntityStore` (documents by id), `ApiStore` (APIs of the gateway), `SubjectStore` (keys and limits),
`BlobStore` (large values by content hash) and `ActivationStore` with its `Ledger` (accepted work and records).
Implementations: `memory`, `sqlite`, `apis`, `filesystem`, `ledger`. All async methods may be called from the event loop
and never block it. Foreign exceptions never leave a store: they become `StoreUnavailable`, `StoreFull` or `Corrupt`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from visp.entity.feed import FeedEntry, Progress

if TYPE_CHECKING:
    from visp.entity.activation import ActivationRecord
    from visp.entity.api import Api

Revision = int
"""Grows with every write of a document, across its deletion and re-creation too; never 0 for what exists."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One entity as it is stored.

    `id` is `ns[/pkg]/name`, unique over all collections; `collection` is `actions`, `triggers`, `rules` or `packages`;
    `namespace` the first segment of the id, `package` the second of three. `body` is the owner's business (JSON). Of
    `apis` the id is the namespace, a slash and the base path, so that no entity has the same.
    """

    id: str
    collection: str
    namespace: str
    package: str | None
    name: str
    updated_ms: int
    publish: bool
    body: bytes
    revision: Revision = 0


class Put(msgspec.Struct, frozen=True):
    """Write `document`; `expected` is the revision it replaces, None when there must be none."""

    document: Document
    expected: Revision | None


class Delete(msgspec.Struct, frozen=True):
    """Remove the document `id`, which must be at revision `expected`."""

    id: str
    expected: Revision


class EntityQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A list: of one collection in one namespace, newest `updated_ms` first (ties: by id, descending).

    `package` None lists all, in packages or not. `only_published` leaves out what is not public. `limit` 0 to 200, but
    for APIs, which are read all at once.
    """

    collection: str
    namespace: str
    package: str | None = None
    only_published: bool = False
    skip: int = 0
    limit: int = 30


class EntityStore(Protocol):
    """Documents with optimistic concurrency. What is acknowledged survives a power cut."""

    async def get(self, id: str) -> Document | None:
        """The document, or None; raises `Corrupt` when it does not read."""
        ...

    async def write(self, changes: Sequence[Put | Delete]) -> list[Revision]:
        """All changes or none; the new revision of each (0 for a Delete).

        Raises `Conflict(wording.CONCURRENT_CHANGE)` when a revision is not the expected one.
        """
        ...

    async def scan(self, collection: str, after: str, limit: int) -> list[Document]:
        """Documents of a collection in all namespaces, in the order of their ids, from the one behind `after` on.

        For housekeeping: raises `Corrupt` when one of them does not read.
        """
        ...

    async def list(self, query: EntityQuery) -> list[Document]:
        """A document that does not read is left out, with a log line."""
        ...

    async def count(self, query: EntityQuery) -> int:
        """How many there are, `skip` and `limit` left aside."""
        ...

    async def close(self) -> None:
        """After what was acknowledged is on disk; nothing may be asked afterwards."""
        ...


class ApiStore(Protocol):
    """APIs by namespace and base path, with optimistic concurrency. What is acknowledged survives a power cut."""

    async def of(self, namespace: str) -> list[Api]:
        """All of a namespace, by base path; one that does not read is left out, with a log line."""
        ...

    async def put(self, api: Api, expected: Revision | None) -> Revision:
        """Stores the API in place of revision `expected` (None: where none is); its new revision.

        Raises `Conflict(wording.CONCURRENT_CHANGE)` when the revision is another.
        """
        ...

    async def delete(self, api: Api) -> None:
        """Removes the API, which must still be at the revision it has: else raises `Conflict`."""
        ...


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One key pair: the uuid, a digest of the key for look-up, the key sealed for those who need it back."""

    uuid: str
    digest: bytes
    sealed: bytes
    subject: str
    namespace: str
    is_blocked: bool = False


class SubjectStore(Protocol):
    """Who may call: key pairs by uuid, and what operators set for a namespace."""

    async def key(self, uuid: str) -> KeyRecord | None:
        """The pair with this uuid, blocked or not."""
        ...

    async def keys_of(self, namespace: str) -> list[KeyRecord]:
        """All pairs of a namespace, by uuid."""
        ...

    async def keys_of_subject(self, subject: str) -> list[KeyRecord]:
        """All pairs of a subject, by uuid."""
        ...

    async def put_key(self, record: KeyRecord) -> None:
        """Adds the pair, or replaces the one with the same uuid."""
        ...

    async def delete_key(self, uuid: str) -> None:
        """Removes the pair, if it is there."""
        ...

    async def version(self) -> int:
        """Another number whenever a pair or limits were written, by whichever process."""
        ...

    async def limits(self, namespace: str) -> bytes | None:
        """The namespace's own limits, JSON, or None."""
        ...

    async def all_limits(self) -> list[tuple[str, bytes]]:
        """Each namespace that has limits of its own, with them; raises `Corrupt` when those of one do not read."""
        ...

    async def put_limits(self, namespace: str, limits: bytes | None) -> None:
        """Replaces the namespace's limits; None removes them."""
        ...


class BlobStore(Protocol):
    """Bytes under their SHA-256 (hex). Writing the same bytes twice is one blob."""

    async def put(self, content: bytes) -> str:
        """The digest under which the bytes are kept, once they are on disk."""
        ...

    async def get(self, digest: str) -> bytes:
        """Raises `Corrupt` when the bytes are gone or do not match their name."""
        ...

    async def sweep(self, used: frozenset[str], older_than_s: float) -> int:
        """Removes what nobody uses and was written longer ago than that; how many."""
        ...


class ActivationQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A list of records of one namespace, newest `start_ms` first.

    `name` is `action` (default package, or a trigger) or `package/action`; `since_ms` and `upto_ms` are inclusive, on
    start.
    """

    namespace: str
    name: str | None = None
    since_ms: int | None = None
    upto_ms: int | None = None
    skip: int = 0
    limit: int = 30


class ActivationStore(Protocol):
    """Records, readable from the moment their outcome is in the ledger."""

    async def get(self, namespace: str, id: str) -> ActivationRecord | None:
        """None for an unknown id and for another namespace's alike. Waits up to 1 s for logs that are still coming."""
        ...

    def when_recorded(self, then: Callable[[ActivationRecord], None]) -> None:
        """`then`, which never raises, hears of each record that this process writes, once it can be read.

        Its logs may still be coming.
        """
        ...

    def has_open(self, id: str) -> bool:
        """Whether a ledger of this process holds it as accepted work that has not ended."""
        ...

    async def is_open(self, id: str) -> bool:
        """The same, of whichever process has its ledger; raises `ServiceError` when that does not answer."""
        ...

    async def list(self, query: ActivationQuery) -> list[ActivationRecord]:
        """Only records whose logs are complete."""
        ...

    async def count(self, query: ActivationQuery) -> int:
        """How many there are, `skip` and `limit` left aside."""
        ...


Then = Callable[[Exception | None], None]
"""Called once, from the event loop and never from inside the call that took it: None, or why the entry is not in
the log.
"""


class Work(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Accepted work: an id and the message that does it, encoded by its owner and not looked into.

    `due_ms` is the time before which it is not begun (0: at once).
    """

    id: str
    message: bytes
    due_ms: int = 0


class OpenWork(msgspec.Struct, frozen=True):
    """Work found at start that has not ended. `is_started`: its run line may have been sent."""

    id: str
    message: bytes
    is_started: bool
    due_ms: int = 0


class Ledger(Protocol):
    """The truth about activations: an append-only log.

    Entries are buffered and written by one `write` at the end of the loop turn in which they were made; `then` is
    called after that write, or after the sync that follows when `is_synced` (and the setting `[ledger] durability` is
    `power`). Order of entries is order of calls. All methods are synchronous and are called from the event loop's
    thread.
    """

    def check_room(self) -> None:
        """Raises `StoreFull` or `Overloaded` when new work must be refused. Cheap: called for each request."""
        ...

    def accept(
        self,
        works: Sequence[Work],
        record: ActivationRecord | None,
        then: Then,
        *,
        is_owed: bool = False,
        is_kept: bool = True,
    ) -> None:
        """Work that will run whatever happens, all of it or none.

        `record` is a fired trigger's own, terminal at once; see `finish` for `is_kept`. Synced. `is_owed`: it follows
        from what is recorded in the same turn of the loop, and so in the same write; what cannot be written now is
        written when there is room, and `then` hears only of that.
        """
        ...

    def keep(self, works: Sequence[Work], then: Then) -> None:
        """What runs already is accepted work from now on, unless it has ended meanwhile. Synced."""
        ...

    def start(self, ids: Sequence[str], then: Then) -> None:
        """The run lines of these accepted works are about to be sent. Synced."""
        ...

    def finish(self, record: ActivationRecord, then: Then, *, is_synced: bool = False, is_kept: bool = True) -> None:
        """The outcome. When `record.has_all_logs` is false, `add_logs` follows.

        `is_kept` false: whoever waits for the record hears that it is over, and nobody can read it.
        """
        ...

    def end(self, id: str) -> None:
        """Accepted work that is no activation is done: it leaves no record."""
        ...

    def add_logs(self, id: str, logs: tuple[str, ...], collected_us: int | None = None) -> None:
        """The complete logs of a record whose logs came after its outcome; `collected_us` goes to its phases."""
        ...

    def has_open(self, id: str) -> bool:
        """Whether it holds this as accepted work that has not ended."""
        ...

    def has_waiting(self, id: str) -> bool:
        """The same, of work that has not begun either."""
        ...

    def open_work(self) -> list[OpenWork]:
        """What an earlier process accepted and did not finish, oldest first.

        Valid after start, empty when read again.
        """
        ...


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter: an activation that failed for good. `id` is its own, `body` its owner's business."""

    id: str
    namespace: str
    at_ms: int
    body: bytes


class LetterStore(Protocol):
    """Dead letters, by namespace. What is acknowledged survives a power cut."""

    async def put_letter(self, letter: Letter, keep: int) -> int:
        """Keeps the letter, once however often it comes, and `keep` of a namespace: how many of the oldest went."""
        ...

    async def letter(self, namespace: str, id: str) -> Letter | None:
        """None for an unknown id and for another namespace's alike; raises `Corrupt`."""
        ...

    async def letters(self, namespace: str, skip: int, limit: int) -> Sequence[Letter]:
        """The newest first."""
        ...

    async def count_letters(self, namespace: str) -> int:
        """All of a namespace."""
        ...

    async def drop_letter(self, namespace: str, id: str) -> bool:
        """Whether there was one."""
        ...


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What an idempotency key stands for: the hash of the body it came with, and the activation that was begun."""

    body: bytes
    id: str
    at_ms: int


class PromiseStore(Protocol):
    """Idempotency keys, each under the hash of its scope. What is acknowledged survives a power cut."""

    async def promise(self, scope: bytes, since_ms: int) -> Promise | None:
        """What the key stands for, if it is that young."""
        ...

    async def put_promise(
        self, scope: bytes, namespace: str, promise: Promise, since_ms: int, limit: int
    ) -> Promise | None:
        """What the key stands for from now on: this, unless there is one that young already.

        None when the namespace has `limit` of them.
        """
        ...

    async def drop_promise(self, scope: bytes) -> None:
        """Nothing was begun after all."""
        ...

    async def sweep_promises(self, before_ms: int) -> int:
        """Forgets those that are older; how many."""
        ...


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """The newest batch of a source: its number, and the activation that was begun for each of its keys.

    `ids` are by the keys' digests, of 16 bytes. `revision` is 0 of what is not stored yet.
    """

    number: int
    at_ms: int
    ids: dict[bytes, str]
    revision: Revision = 0


class BatchStore(Protocol):
    """One batch of each source of events, under the hash of its scope. What is acknowledged survives a power cut."""

    async def batch(self, scope: bytes) -> Batch | None:
        """Raises `Corrupt`."""
        ...

    async def put_batch(self, scope: bytes, namespace: str, batch: Batch, limit: int) -> bool | None:
        """Stores the batch in place of the one with its revision; false when that is another by now.

        None when the namespace would have more than `limit` promises, those of idempotency keys counted with it.
        """
        ...

    async def sweep_batches(self, before_ms: int) -> int:
        """Forgets those that are older; how many."""
        ...


WITHIN = "\n"
"""Between an API's base path and one of its paths, where a client may call that path alone."""


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A client of an API: `digest` is of its id, for look-up; `secret` the digest of its secret, empty without one.

    `base_path` is the API's, with `WITHIN` and a path behind it for that path alone, and empty for all APIs.
    A digest that another server made is followed by that server's key, sealed.
    """

    namespace: str
    base_path: str
    digest: bytes
    client: str
    secret: bytes = b""


class SubscriptionStore(Protocol):
    """Who may call which API of the gateway. What is acknowledged survives a power cut."""

    async def put_subscription(self, subscription: Subscription, limit: int) -> bool:
        """Adds the client, or replaces the one of this id; false when the namespace has `limit` of them."""
        ...

    async def subscription(self, namespace: str, base_path: str, digest: bytes) -> Subscription | None:
        """Raises `Corrupt`."""
        ...

    async def subscriptions(self, namespace: str, base_path: str) -> Sequence[Subscription]:
        """All of an API, by the client's id."""
        ...

    async def drop_subscription(self, namespace: str, base_path: str, digest: bytes | None) -> bool:
        """Whether there was one; None drops all of the API, and of each of its paths."""
        ...


Kept = tuple[FeedEntry, Progress]
"""A feed, and how it stands."""


class FeedStore(Protocol):
    """Feeds of triggers, and who runs their sources. What is acknowledged survives a power cut."""

    async def put_feed(self, entry: FeedEntry, progress: Progress, limit: int) -> bool:
        """In the place of the trigger's feed, if it has one; false when the namespace has `limit` of them."""
        ...

    async def change_feed(self, entry: FeedEntry) -> bool:
        """Replaces what is kept of this very feed; false when it is gone. Its progress stays."""
        ...

    async def feed(self, namespace: str, trigger: str) -> Kept | None:
        """Raises `Corrupt`."""
        ...

    async def feeds(self, namespace: str) -> Sequence[Kept]:
        """All of a namespace, by trigger."""
        ...

    async def feed_of(self, id: str) -> Kept | None:
        """Raises `Corrupt`."""
        ...

    async def count_feed(self, entry: FeedEntry, fired: int, at_ms: int) -> None:
        """So many events more were fired of this very feed."""
        ...

    async def drop_feed(self, namespace: str, trigger: str) -> bool:
        """Whether there was one."""
        ...

    async def lease(self, holder: str, now_ms: int, until_ms: int, share: int) -> Sequence[tuple[str, str]]:
        """`holder` is there until then; it takes one of `share` parts of what nobody has: namespaces and triggers."""
        ...

    async def held(self, holder: str, keys: Collection[tuple[str, str]] | None = None) -> Sequence[Kept]:
        """What it has of these triggers, or all that it has."""
        ...

    async def release(self, holder: str) -> None:
        """Whatever it has is anybody's from now on."""
        ...

    async def advance(
        self, entry: FeedEntry, progress: Progress, holder: str, *, disabled: FeedEntry | None = None
    ) -> bool:
        """Keeps how a feed stands; false when it is not the holder's any more. `disabled` takes the entry's place."""
        ...


class Promises(LetterStore, PromiseStore, BatchStore, SubscriptionStore, Protocol):
    """What a server owes beside activations."""
