"""Containers that are kept ready for actions that ask for it, whether or not anyone uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from visp.bus.messages import ActivationMessage
from visp.entity.action import Action
from visp.entity.execs import SequenceExec
from visp.invoker.job import Job
from visp.invoker.pool import TRIES
from visp.invoker.slot import Key
from visp.telemetry import log

if TYPE_CHECKING:
    from visp.bus.messages import Provide
    from visp.clock import Clock
    from visp.invoker.pool import Pool
    from visp.store.cache import EntityCache

PERIOD_S = 0.5
BACKOFF_S, BACKOFF_MOST_S = 1.0, 300.0
"""An action whose container did not come up is tried again after this, then after twice as long, and so on."""


class Wanted(msgspec.Struct):
    """What is asked for an action: how many, and the message of a run that will not be."""

    count: int
    run: ActivationMessage
    again_s: float = 0.0
    backoff_s: float = BACKOFF_S


class Provision:
    """What is asked for, and what of it the pool lacks. `share` of its memory may be used for it."""

    def __init__(self, pool: Pool, entities: EntityCache, clock: Clock, share: float) -> None:
        self._pool = pool
        self._entities = entities
        self._clock = clock
        self._limit_mb = int(pool.memory_mb * share)
        self._wanted: dict[str, Wanted] = {}

    def heard(self, message: Provide) -> None:
        """The count of an action; 0 for none any more."""
        if message.run is None or message.count == 0:
            self._wanted.pop(message.action, None)
            self._pool.provided = {k: n for k, n in self._pool.provided.items() if k.action != message.action}
        else:
            self._wanted[message.action] = Wanted(message.count, message.run)

    async def keep(self) -> None:
        """Runs as long as the invoker does."""
        while True:
            await self._clock.sleep(PERIOD_S)
            if self._wanted:
                await self._look()

    async def _look(self) -> None:
        provided: dict[Key, int] = {}
        held_mb, now_s = 0, self._clock.monotonic_s()
        for id, wanted in list(self._wanted.items()):
            action = await self._entities.get(id)
            if not isinstance(action, Action) or isinstance(action.exec, SequenceExec):
                continue  # whoever deleted it, or made it another, will be heard of
            key, memory_mb = Key(wanted.run.namespace, id, action.revision), action.limits.memory_mb
            count = min(wanted.count, max(0, self._limit_mb - held_mb) // memory_mb)
            held_mb += count * memory_mb
            if count:
                provided[key] = count
            if now_s < wanted.again_s:
                continue
            for _ in range(min(count - self._pool.count_of(key), self._pool.starts_left)):
                if self._pool.shelf.free_mb < memory_mb:
                    break
                self._pool.provide(Job(wanted.run, action, key, now_s, tries=TRIES, is_provision=True))
        self._pool.provided = provided

    def failed(self, job: Job, reason: str) -> None:
        """A container did not come up: its action waits before another is tried."""
        wanted = self._wanted.get(job.message.action)
        log.warning("provision.failed", action=job.message.action, reason=reason)
        if wanted is not None:
            wanted.again_s = self._clock.monotonic_s() + wanted.backoff_s
            wanted.backoff_s = min(2 * wanted.backoff_s, BACKOFF_MOST_S)

    @property
    def asked(self) -> int:
        """Containers that are asked for, all together."""
        return sum(wanted.count for wanted in self._wanted.values())
