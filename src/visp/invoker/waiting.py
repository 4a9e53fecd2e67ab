"""The activations for which there is no container yet: a queue for each key, and whose turn it is."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from visp.invoker.fair import Accounts

if TYPE_CHECKING:
    from collections.abc import Callable

    from visp.invoker.job import Job
    from visp.invoker.slot import Key


class Waiting:
    """Bounded by what may be in flight at all: every job was admitted before."""

    __slots__ = ("_by_namespace", "accounts", "blocked", "queues")

    def __init__(self) -> None:
        self.queues: dict[Key, deque[Job]] = {}
        """Not one of them is empty. Read on the warm path; changed here only."""
        self.accounts = Accounts()
        self._by_namespace: dict[str, int] = {}
        self.blocked: Job | None = None
        """Of the jobs that wait for memory, the one whose turn it is: what gets free is kept for it."""

    def __bool__(self) -> bool:
        return bool(self.queues)

    def __len__(self) -> int:
        return sum(self._by_namespace.values())

    def push(self, job: Job) -> None:
        self._count(job)
        queue = self.queues.get(job.key)
        if queue is None:
            queue = self.queues[job.key] = deque()
        queue.append(job)

    def push_first(self, job: Job) -> None:
        """For a job that was taken and could not be served."""
        self._count(job)
        queue = self.queues.get(job.key)
        if queue is None:
            queue = self.queues[job.key] = deque()
        queue.appendleft(job)

    def _count(self, job: Job) -> None:
        namespace = job.key.namespace
        count = self._by_namespace.get(namespace, 0)
        if count == 0:
            self.accounts.arrive(namespace)
        self._by_namespace[namespace] = count + 1

    def pop(self, key: Key, now_s: float) -> Job:
        """The first job of the key; it is placed now."""
        queue = self.queues[key]
        job = queue.popleft()
        if not queue:
            del self.queues[key]
        self._discount(key.namespace, 1)
        job.placed_s = now_s
        if job is self.blocked:
            self.blocked = None  # until the next look at all that wait
        return job

    def withdraw(self, which: Callable[[Job], bool]) -> list[Job]:
        """Takes out the jobs of which `which` is true, in the order of their queues."""
        taken: list[Job] = []
        for key, queue in list(self.queues.items()):
            kept = deque(job for job in queue if not which(job))
            if len(kept) == len(queue):
                continue
            taken += [job for job in queue if which(job)]
            self._discount(key.namespace, len(queue) - len(kept))
            if kept:
                self.queues[key] = kept
            else:
                del self.queues[key]
        return taken

    def _discount(self, namespace: str, count: int) -> None:
        left = self._by_namespace[namespace] - count
        if left:
            self._by_namespace[namespace] = left
        else:
            del self._by_namespace[namespace]

    def in_turn(self) -> list[Key]:
        """Every key that waits: of the namespace that was charged least first, within it who waits longest."""
        turn = self.accounts.waiting_turn
        return sorted(self.queues, key=lambda key: (turn(key.namespace), self.queues[key][0].arrived_s))

    def is_before(self, job: Job, other: Job) -> bool:
        """Whether it is the job's turn before the other's."""
        turn = self.accounts.waiting_turn
        own, others = job.key.namespace, other.key.namespace
        return (turn(own), job.arrived_s) < (turn(others), other.arrived_s)

    def clear(self) -> None:
        self.blocked = None
        self.queues.clear()
        self._by_namespace.clear()
