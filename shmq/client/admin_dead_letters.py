"""AdminDeadLetters: the part of `AdminClient` that looks after the dead letters of consumer groups.

Addresses, threads and errors as in `AdminClient`.
"""

from __future__ import annotations

from collections.abc import Iterator

from shmq.base.errors import TopicNotExist
from shmq.client.admin_links import AdminLinks
from shmq.client.give_back import NOT_COPIED, RETRY_QUEUES
from shmq.client.pull import PullRequest, PullStatus
from shmq.client.send_commands import read_stored
from shmq.model.message_ext import MessageExt
from shmq.model.message_queue import MessageQueue
from shmq.model.names import (
    AUTO_CREATE_TOPIC,
    CLIENT_INNER_PRODUCER_GROUP,
    TOOLS_CONSUMER_GROUP,
    dlq_topic,
    retry_topic,
)
from shmq.model.properties import encode_properties
from shmq.model.route import BrokerData
from shmq.model.subscription import build_subscription
from shmq.model.sys_flag import COMPRESSED, COMPRESSION_MASK
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command
from shmq.protocol.headers.send import SendMessageV2Header

PULL_COUNT = 32


class AdminDeadLetters:
    """Requests about the messages that a group failed to consume too often."""

    _links: AdminLinks

    def dead_letters(self, group: str) -> Iterator[MessageExt]:
        """Yield a group's dead letters, the oldest of each broker first, up to the newest at the call.

        TopicNotExist when the group never had any.
        """
        topic = dlq_topic(group)
        route = self._links.route(topic)
        for data in self._links.masters(topic):
            for queue in sorted(route.read_queues(topic)):
                if queue.broker_name == data.broker_name:
                    yield from self._queue_of_dead(data, queue)

    def _queue_of_dead(self, data: BrokerData, queue: MessageQueue) -> Iterator[MessageExt]:
        offset, stop = 0, None
        subscription = build_subscription(queue.topic, "*")
        while stop is None or offset < stop:
            request = PullRequest(
                TOOLS_CONSUMER_GROUP, queue, offset, PULL_COUNT, subscription, post_subscription=True
            )
            result = request.result(self._links.call_broker(str(data.master_addr), request.command()))
            stop = result.max_offset if stop is None else stop
            if result.status is PullStatus.NO_NEW_MSG:
                return
            for message in result.messages:
                if message.queue_offset < stop:
                    yield message
            offset = result.next_begin_offset

    def resend_dead_letter(self, group: str, message: MessageExt) -> None:
        """Deliver a dead letter to its group once more, as if it had never failed; no other group gets it.

        It goes to the group's retry topic without delay, under its own unique key, with all its tries
        before it. The dead letter itself stays.
        """
        topic = retry_topic(group)
        masters = self._links.masters(topic)
        if not masters:
            raise TopicNotExist(f"no broker takes messages for group {group!r} now")
        data = next((one for one in masters if one.broker_name == message.broker_name), masters[0])
        properties = {name: text for name, text in message.properties.items() if name not in NOT_COPIED}
        header = SendMessageV2Header(
            CLIENT_INNER_PRODUCER_GROUP,
            topic,
            AUTO_CREATE_TOPIC,
            RETRY_QUEUES,
            -1,
            message.sys_flag & (COMPRESSED | COMPRESSION_MASK),
            message.born_timestamp,
            message.flag,
            encode_properties(properties).decode(),
        )
        command = Command.request(RequestCode.SEND_MESSAGE_V2, header, bytes(message.stored_body))
        read_stored(self._links.call_broker(str(data.master_addr), command))
