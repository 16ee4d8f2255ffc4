"""DirectReaders: one direct reader per local broker, for one consumer; none where direct pull is off."""

from __future__ import annotations

from shmq.client.consumer_config import ConsumerConfig
from shmq.client.direct_reader import DirectReader
from shmq.client.links import BrokerLink
from shmq.client.periodic import Periodic
from shmq.model.route import MASTER_ID

LOOK_S = 5.0
"""How soon a consumer that pulls nothing lets go of files that the broker has deleted."""


class DirectReaders:
    """The readers of one consumer, made when first asked for."""

    def __init__(self, group: str, config: ConsumerConfig, periodic: Periodic) -> None:
        """Read on behalf of `group`; `periodic` are the client's repeated duties."""
        self._group = group
        self._config = config
        self._readers: dict[BrokerLink, DirectReader] = {}
        self._periodic = periodic
        self._duty = periodic.add("let go of deleted files", self._let_go, LOOK_S, LOOK_S)

    def of(self, link: BrokerLink) -> DirectReader | None:
        """Return the reader for a broker; None when it is not local, not the master, or direct pull is
        off."""
        if not self._config.direct_pull or link.broker_id != MASTER_ID or not link.is_local:
            return None
        reader = self._readers.get(link)
        if reader is None:
            reader = self._readers.setdefault(link, DirectReader(link, self._group, self._config.broker_user))
        return reader

    def _let_go(self) -> None:
        for reader in list(self._readers.values()):
            reader.let_go()

    def close(self) -> None:
        """End every grant."""
        self._periodic.remove(self._duty)
        for reader in list(self._readers.values()):
            reader.close()
