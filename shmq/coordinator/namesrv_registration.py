"""What one name server has been told of this broker, and telling it the rest.

A name server takes topics from a registration only if its DataVersion is another one than it knows (Apache
RocketMQ 5.3, RouteInfoManager.java). Topics made in the same moment share a version, and the second
registration with it would be ignored until something else changes. So registrations to one server go out
one after another, each carries every topic that was not told yet, and the version is moved first when the
server knows it already. Coordinator's loop only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from shmq.base.errors import Unavailable
from shmq.broker.topics import TopicRegistry
from shmq.coordinator.namesrv_channel import NamesrvChannel
from shmq.model.topic_config import TopicConfig
from shmq.protocol.codes import ResponseCode, error_of
from shmq.protocol.command import Command

MakeRequest = Callable[[Iterable[TopicConfig]], Command]


class NamesrvRegistration:
    """This broker at one name server."""

    def __init__(
        self, address: str, topics: TopicRegistry, request: MakeRequest, on_lost: Callable[[], None]
    ) -> None:
        """`request` makes a registration of some topics with the present DataVersion."""
        self.channel = NamesrvChannel(address, on_lost)
        self._topics = topics
        self._request = request
        self._untold: dict[str, TopicConfig] = {}
        self._told = topics.data_version
        self._one_at_a_time = asyncio.Lock()

    async def tell_all(self, limit_s: float) -> bool:
        """Send the whole topic table; True. ShmqError says why the server did not take it."""
        async with self._one_at_a_time:
            if self._untold:
                self._renew_version()
            self._untold.clear()  # the table holds them
            await self._call(list(self._topics), limit_s)
            self.channel.registered = True
            return True

    async def tell_topic(self, config: TopicConfig, limit_s: float) -> bool:
        """Send a new or changed topic, with all others that wait; returns when the server knows it.

        False: nothing was sent, as somebody else did, or the server does not know the broker yet and gets the
        whole table anyway. ShmqError as above; the topic then comes with the next whole table.
        """
        if not self.channel.registered and not self._one_at_a_time.locked():
            return False
        self._untold[config.topic_name] = config
        try:
            async with asyncio.timeout(limit_s):
                return await self._tell_untold(limit_s)
        except TimeoutError:
            raise Unavailable(f"name server {self.channel.address} is too slow for a new topic") from None

    async def _tell_untold(self, limit_s: float) -> bool:
        async with self._one_at_a_time:
            told, self._untold = self._untold, {}
            if not told or not self.channel.registered:
                return False
            self._renew_version()
            try:
                await self._call(told.values(), limit_s)
            except BaseException:
                self._untold = {**told, **self._untold}
                raise
            return True

    def _renew_version(self) -> None:
        """Make sure that the next registration has a version this server has not seen."""
        if self.channel.registered and self._topics.data_version == self._told:
            self._topics.touch()

    async def _call(self, topics: Iterable[TopicConfig], limit_s: float) -> None:
        self._told = self._topics.data_version
        answer = await self.channel.call(self._request(topics), limit_s)
        if answer.code != ResponseCode.SUCCESS:
            raise error_of(answer.code, answer.remark)
