"""DirectReaders: one direct reader per local broker, for one consumer; none where direct pull is off."""

from __future__ import annotations

from shmq.client.consumer_config import ConsumerConfig
from shmq.client.direct_reader import DirectReader
from shmq.client.links import BrokerLink
from shmq.client.routes import Routes
from shmq.model.route import MASTER_ID


class DirectReaders:
    """The readers of one consumer, made when first asked for."""

    def __init__(self, group: str, config: ConsumerConfig, routes: Routes) -> None:
        """Read on behalf of `group`."""
        self._group = group
        self._config = config
        self._routes = routes
        self._readers: dict[BrokerLink, DirectReader] = {}

    def of(self, link: BrokerLink) -> DirectReader | None:
        """Return the reader for a broker; None when it is not local, not the master, or direct pull is
        off."""
        if not self._config.direct_pull or link.broker_id != MASTER_ID or not link.is_local:
            return None
        reader = self._readers.get(link)
        if reader is None:
            reader = self._readers.setdefault(link, DirectReader(link, self._group, self._config.broker_user))
        return reader

    def close(self) -> None:
        """End every grant."""
        for reader in list(self._readers.values()):
            reader.close()
