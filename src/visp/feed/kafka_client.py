"""The Kafka library's client, held to addresses that may be reached: those of brokers come from the brokers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError

from visp.errors import VispError
from visp.feed.connecting import Pinned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from visp.feed.base import Reach

__all__ = ["CheckedClient", "TopicPartition", "consumer", "errors"]

errors = (KafkaError, OSError)
Where = tuple[str, int]

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it says again and again is said once, by who waits


class PinnedCluster(ClusterMetadata):  # type: ignore[misc]
    """Of brokers it knows those alone whose address was checked, by that address."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.pinned: dict[Where, Pinned] = {}

    def broker_metadata(self, broker_id: Any) -> Any:
        broker = super().broker_metadata(broker_id)
        address = None if broker is None else self.pinned.get((broker.host, broker.port))
        return None if address is None else broker._replace(host=address)

    def told_of(self, broker_id: Any) -> Any:
        """As the brokers have it: by name."""
        return super().broker_metadata(broker_id)


class CheckedClient(AIOKafkaClient):  # type: ignore[misc]
    """Checks an address whenever a connection is made; a refusal ends what waits for it."""

    def __init__(self, reach: Reach, brokers: Sequence[str], connect_s: float, how: Mapping[str, Any]) -> None:
        super().__init__(bootstrap_servers=list(brokers), request_timeout_ms=int(connect_s * 1000), **how)
        self._reach = reach
        self._first: list[tuple[Pinned, int, Any]] = []
        self.cluster = PinnedCluster(metadata_max_age_ms=300_000)

    @property
    def hosts(self) -> list[tuple[Pinned, int, Any]]:
        return self._first

    async def bootstrap(self) -> None:
        refused: VispError | None = None
        for host, port, family in super().hosts:
            try:
                for address in await self._reach.check(host, port):
                    self._first.append((Pinned(address, host), port, family))
            except VispError as error:
                refused = error
        if not self._first and refused is not None:
            raise refused
        await super().bootstrap()

    async def _get_conn(self, node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, no_hint: bool = False) -> Any:
        broker = self.cluster.told_of(node_id)
        if broker is not None:
            connection = self._conns.get((node_id, group))
            if connection is None or not connection.connected():
                where = (broker.host, broker.port)
                self.cluster.pinned.pop(where, None)
                try:
                    found = await self._reach.check(*where)
                except VispError:
                    return None
                self.cluster.pinned[where] = Pinned(found[0], broker.host)
        return await super()._get_conn(node_id, group=group, no_hint=no_hint)


def consumer(client: CheckedClient, **settings: Any) -> AIOKafkaConsumer:
    """A consumer whose connections are that client's."""
    made = AIOKafkaConsumer(**settings)
    made._client = client
    return made
