"""A controller over the twins in memory, and a scripted subscriber in the invoker's place."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from visp.bus import base as topics
from visp.bus.memory import MemoryBus
from visp.bus.messages import ActivationMessage, Message, Ping, ResultAck
from visp.clock import ManualClock
from visp.controller.acks import Acks
from visp.controller.composites import Composites
from visp.controller.fire import Fire
from visp.controller.invoke import Invoke
from visp.controller.primitive import Answer, Order, Primitive
from visp.controller.resolver import Resolver
from visp.entitlement.throttle import Throttle
from visp.entity.action import Action
from visp.entity.activation import ActivationHead, ActivationRecord, Outcome, Status
from visp.entity.execs import Code, CodeExec, SequenceExec
from visp.entity.limits import ActionLimits
from visp.entity.names import FullyQualifiedName, from_id
from visp.entity.runtime_manifest import Manifest
from visp.entity.subject import Identity, UserLimits
from visp.scheduler.fleet import Fleet
from visp.settings import Queue
from visp.store.base import Then, Work
from visp.store.cache import EntityCache, Write
from visp.store.memory import MemoryBlobs, MemoryEntities, MemoryLedger


class Ledger(MemoryLedger):
    """Also keeps the entries in the order in which they were made, and fails by order."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[str] = []
        self.works: list[Work] = []
        self.error: Exception | None = None

    def accept(self, works: Sequence[Work], record: ActivationRecord | None, then: Then, **named: bool) -> None:
        self.entries.append("accepted " + " ".join(work.id for work in works))
        self.works += works
        super().accept(works, record, lambda _: then(self.error), **named)

    def start(self, ids: Sequence[str], then: Then) -> None:
        self.entries += [f"started {id}" for id in ids]
        super().start(ids, lambda _: then(self.error))

    def finish(self, record: ActivationRecord, then: Then, **named: bool) -> None:
        self.entries.append(f"finished {record.head.id}")
        super().finish(record, lambda _: then(self.error), **named)


class Hands:
    """What is sent to the invoker, and its answers: at once by `answers` (by the action's name), or when told."""

    def __init__(self, bus: MemoryBus, clock: ManualClock) -> None:
        self.messages: list[Message] = []
        self.answers: dict[str, Callable[[bytes], Outcome]] = {}
        self.duration_ms = 10
        self.memory_mb = 256
        self._bus = bus
        self._clock = clock
        bus.subscribe(topics.invoker_topic(0), self._heard)

    def _heard(self, message: Message) -> None:
        self.messages.append(message)
        if isinstance(message, ActivationMessage):
            answer = self.answers.get(from_id(message.action).name)
            if answer is not None:
                asyncio.get_running_loop().call_soon(self.finish, message.id, answer(message.content))

    @property
    def runs(self) -> list[ActivationMessage]:
        return [message for message in self.messages if isinstance(message, ActivationMessage)]

    def finish(self, id: str, outcome: Outcome, error: str | None = None) -> None:
        """The run's end, as the invoker tells of it."""
        message = next(message for message in self.runs if message.id == id)
        head = ActivationHead(
            id=id,
            namespace=message.namespace,
            subject=message.subject,
            name=from_id(message.action).name,
            version="0.0.1",
            start_ms=self._clock.now_ms(),
            end_ms=self._clock.now_ms() + self.duration_ms,
            duration_ms=self.duration_ms,
            status=outcome.status,
            size=outcome.size,
            path=message.action,
            kind="python:3.11",
            limits=ActionLimits(memory_mb=self.memory_mb),
            cause=message.cause,
        )
        self._bus.publish(topics.ACKS, ResultAck(head, outcome.result, error, is_complete=True))


class Controller:
    """Everything between the door and the bus."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.clock = ManualClock()
        self.bus = MemoryBus()
        self.ledger = Ledger()
        self.entities = EntityCache(MemoryEntities(), MemoryBlobs())
        self.throttle = Throttle(self.clock)
        self.acks = Acks(self.throttle, Queue(activations=100, payload_bytes=10_000), self.bus, self.clock)
        self.fleet = Fleet(self.clock)
        self.hands = Hands(self.bus, self.clock)
        self.primitive = Primitive(acks=self.acks, bus=self.bus, ledger=self.ledger, fleet=self.fleet, clock=self.clock)
        resolver = Resolver(self.entities)
        self.composites = Composites(
            primitive=self.primitive,
            resolver=resolver,
            acks=self.acks,
            ledger=self.ledger,
            activations=self.ledger,
            clock=self.clock,
            tasks=tasks,
        )
        self.invoke = Invoke(
            throttle=self.throttle,
            primitive=self.primitive,
            composites=self.composites,
            manifest=Manifest({}),
            clock=self.clock,
        )
        self.fire = Fire(
            throttle=self.throttle,
            invoke=self.invoke,
            primitive=self.primitive,
            composites=self.composites,
            resolver=resolver,
            ledger=self.ledger,
            clock=self.clock,
        )
        self.identity = self.caller()
        self.answers: list[Answer] = []
        self.fleet.heard(Ping(0, 1024, 0, 0))

    def caller(self, **limits: int) -> Identity:
        values = {"invocations_per_minute": 1000, "fires_per_minute": 1000, "concurrent_invocations": 1000} | limits
        return Identity(subject="someone", namespace="guest", namespace_uuid="u", limits=UserLimits(**values))

    async def add(self, name: str, **fields: Any) -> Action:
        """Stores an action of the caller's."""
        values: dict[str, Any] = {
            "name": FullyQualifiedName("guest", None, name),
            "exec": CodeExec("python:3.11", Code(False, inline="")),
        }
        await self.entities.write(Write(Action(**(values | fields)), None))
        action = self.entities.peek(f"guest/{name}")
        assert isinstance(action, Action)
        return action

    async def add_sequence(self, name: str, *components: str) -> Action:
        parts = tuple(FullyQualifiedName("guest", None, component) for component in components)
        return await self.add(name, exec=SequenceExec(parts))

    def order(self, action: Action, content: bytes = b"{}") -> Order:
        return Order(
            id=self.primitive.new_id(),
            identity=self.identity,
            action=action,
            content=content,
            transid="t",
            received_ms=self.clock.now_ms(),
        )

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0)

    async def answer(self) -> Answer:
        """The next answer that `answers.append` was given."""
        await self.until(lambda: self.answers)
        return self.answers.pop(0)

    async def settle(self) -> None:
        for _ in range(40):
            await asyncio.sleep(0)


@pytest.fixture
async def controller() -> AsyncIterator[Controller]:
    async with asyncio.TaskGroup() as tasks:
        yield Controller(tasks)


@pytest.fixture
async def successor() -> AsyncIterator[Controller]:
    """The same once more: a server that was started after a crash."""
    async with asyncio.TaskGroup() as tasks:
        yield Controller(tasks)


@pytest.fixture
def good() -> Callable[[bytes], Callable[[bytes], Outcome]]:
    """An action that always answers with the same result."""
    return lambda result: lambda _: Outcome(Status.SUCCESS, result, len(result))
