"""AdminGroups: the part of `AdminClient` that changes consumer groups and moves their offsets.

Addresses, threads and errors as in `AdminClient`.
"""

from __future__ import annotations

from shmq.client.admin_links import AdminLinks
from shmq.client.channel import view_of
from shmq.model.consumer_group import SubscriptionGroupConfig
from shmq.model.message_queue import MessageQueue
from shmq.protocol.bodies.groups import (
    ClientConnection,
    decode_group_config,
    decode_producer_connections,
    encode_group_config,
)
from shmq.protocol.bodies.offsets import decode_reset_offsets
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.admin import (
    CloneGroupOffsetHeader,
    DeleteGroupHeader,
    GroupHeader,
    ResetOffsetHeader,
)
from shmq.protocol.headers.client import ProducerGroupHeader
from shmq.protocol.headers.offset import OffsetResponseHeader, SearchOffsetHeader

TO_NEWEST = -1
"""A time that means the newest end."""
ALL_QUEUES = -1


class AdminGroups:
    """Requests about one broker's groups."""

    _links: AdminLinks

    def _ask(
        self, broker_addr: str, code: RequestCode, header: object | None = None, body: bytes | None = None
    ) -> memoryview:
        """Ask one broker and return the answer's body."""
        return view_of(self._links.ask_broker(broker_addr, Command.request(code, header, body)))

    def group_config(self, broker_addr: str, group: str) -> SubscriptionGroupConfig:
        """Return a group's settings at one broker (352), which makes the group where that is allowed."""
        found = self._ask(broker_addr, RequestCode.GET_SUBSCRIPTIONGROUP_CONFIG, GroupHeader(group))
        return decode_group_config(found)

    def update_group(self, broker_addr: str, config: SubscriptionGroupConfig) -> None:
        """Create a group or replace its settings (200)."""
        body = encode_group_config(config)
        self._ask(broker_addr, RequestCode.UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, None, body)

    def delete_group(self, broker_addr: str, group: str, *, clean_offset: bool) -> None:
        """Forget a group (207), with `clean_offset` its committed offsets too."""
        self._ask(broker_addr, RequestCode.DELETE_SUBSCRIPTIONGROUP, DeleteGroupHeader(group, clean_offset))

    def producer_connections(self, broker_addr: str, group: str) -> list[ClientConnection]:
        """Return the live producers of a group as one broker sees them (204)."""
        found = self._ask(broker_addr, RequestCode.GET_PRODUCER_CONNECTION_LIST, ProducerGroupHeader(group))
        return decode_producer_connections(found)

    def offset_at(self, broker_addr: str, queue: MessageQueue, timestamp_ms: int) -> int:
        """Return the first offset of a queue stored at or after a time (29)."""
        header = SearchOffsetHeader(queue.topic, queue.queue_id, timestamp_ms)
        response = self._links.ask_broker(
            broker_addr, Command.request(RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, header)
        )
        return response.read_header(OffsetResponseHeader).offset

    def reset_offset(
        self,
        broker_addr: str,
        group: str,
        topic: str,
        timestamp_ms: int,
        *,
        force: bool = True,
        queue_id: int = ALL_QUEUES,
        offset: int = -1,
    ) -> dict[MessageQueue, int]:
        """Move a group to a time, or in one queue to an offset (222); returns where each queue stands now.

        `timestamp_ms` TO_NEWEST is the newest end. Without `force` a queue only ever goes back.
        """
        header = ResetOffsetHeader(group, topic, timestamp_ms, force, queue_id, offset)
        return decode_reset_offsets(self._ask(broker_addr, RequestCode.INVOKE_BROKER_TO_RESET_OFFSET, header))

    def clone_group_offset(
        self, broker_addr: str, src_group: str, dest_group: str, topic: str | None
    ) -> None:
        """Give one group the offsets of another (314), in one topic or (None) in all."""
        header = CloneGroupOffsetHeader(src_group, dest_group, topic)
        self._ask(broker_addr, RequestCode.CLONE_GROUP_OFFSET, header)
