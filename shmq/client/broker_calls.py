"""BrokerCalls: the requests that consumers and producers send beside sends and pulls, as typed methods.

Each names a queue or a broker, finds its link and blocks the calling thread for at most the client's API
timeout. Errors are the broker's (BrokerError) or the connection's (RemotingError).
"""

from __future__ import annotations

from shmq.client.channel import view_of
from shmq.client.config import ClientConfig
from shmq.client.links import BrokerLink
from shmq.client.offset_store import NO_OFFSET, ReadCount
from shmq.client.pulled_message import PulledMessage
from shmq.client.routes import Routes
from shmq.model.consumer_group import MessageModel
from shmq.model.message_queue import MessageQueue
from shmq.model.subscription import SubscriptionData
from shmq.protocol.bodies.groups import decode_consumer_list
from shmq.protocol.bodies.heartbeat import ClientConfigCheck, encode_client_config_check
from shmq.protocol.codes import RequestCode, ResponseCode, error_of
from shmq.protocol.command import Command
from shmq.protocol.headers.client import ConsumerGroupHeader, UnregisterClientHeader
from shmq.protocol.headers.offset import (
    GetEarliestMsgStoretimeHeader,
    GetMaxOffsetHeader,
    GetMinOffsetHeader,
    OffsetResponseHeader,
    QueryConsumerOffsetHeader,
    SearchOffsetHeader,
    TimestampResponseHeader,
    UpdateConsumerOffsetHeader,
)
from shmq.protocol.headers.send import ConsumerSendMsgBackHeader

SEND_BACK_TIMEOUT_S = 5.0
LAST_MS = (1 << 63) - 1
"""Later than any message."""


class BrokerCalls:
    """Small requests to the brokers of one client instance."""

    def __init__(self, routes: Routes, config: ClientConfig) -> None:
        """Use the links of `routes`."""
        self._routes = routes
        self._config = config

    @property
    def _timeout_s(self) -> float:
        return self._config.mq_client_api_timeout_ms / 1000

    def _link(self, queue: MessageQueue) -> BrokerLink:
        """Return the master of a queue's broker, looking its topic up when nobody did yet."""
        if self._routes.route(queue.topic) is None:
            self._routes.refresh(queue.topic)
        return self._routes.link(queue.broker_name)

    def max_offset(self, queue: MessageQueue) -> int:
        """Return the next offset to be written."""
        return self._offset(
            queue, RequestCode.GET_MAX_OFFSET, GetMaxOffsetHeader(queue.topic, queue.queue_id)
        )

    def min_offset(self, queue: MessageQueue) -> int:
        """Return the oldest offset that can be read."""
        return self._offset(
            queue, RequestCode.GET_MIN_OFFSET, GetMinOffsetHeader(queue.topic, queue.queue_id)
        )

    def search_offset(self, queue: MessageQueue, timestamp_ms: int, *, upper: bool = False) -> int:
        """Return the first offset stored at or after a time; with `upper` the last at or before it."""
        boundary = "UPPER" if upper else "LOWER"
        header = SearchOffsetHeader(queue.topic, queue.queue_id, timestamp_ms, boundary)
        return self._offset(queue, RequestCode.SEARCH_OFFSET_BY_TIMESTAMP, header)

    def _offset(self, queue: MessageQueue, code: RequestCode, header: object) -> int:
        response = self._link(queue).request(Command.request(code, header), self._timeout_s)
        return response.read_header(OffsetResponseHeader).offset

    def earliest_store_time(self, queue: MessageQueue) -> int:
        """Return when the queue's oldest message was stored (ms), -1 for an empty queue."""
        header = GetEarliestMsgStoretimeHeader(queue.topic, queue.queue_id)
        command = Command.request(RequestCode.GET_EARLIEST_MSG_STORETIME, header)
        response = self._link(queue).request(command, self._timeout_s)
        return response.read_header(TimestampResponseHeader).timestamp

    def consumer_offset(self, group: str, queue: MessageQueue) -> int:
        """Return where a group goes on, NO_OFFSET when the broker has nothing stored."""
        header = QueryConsumerOffsetHeader(group, queue.topic, queue.queue_id)
        command = Command.request(RequestCode.QUERY_CONSUMER_OFFSET, header)
        response = self._link(queue).call(command, self._timeout_s)
        if response.code == ResponseCode.QUERY_NOT_FOUND:
            return NO_OFFSET
        if response.code != ResponseCode.SUCCESS:
            raise error_of(response.code, response.remark)
        return response.read_header(OffsetResponseHeader).offset

    def commit_offset(
        self,
        group: str,
        queue: MessageQueue,
        offset: int,
        count: ReadCount,
        *,
        oneway: bool = True,
        only_forward: bool = False,
    ) -> None:
        """Store where a group goes on; a direct reader's counts go along to a broker that knows them.

        With `only_forward` shmq's broker ignores an offset behind the one it has; others store it.
        """
        link = self._link(queue)
        header = UpdateConsumerOffsetHeader(group, queue.topic, queue.queue_id, offset)
        if only_forward:
            header.only_forward = True
        if count.messages:
            header.read_count, header.read_bytes = count
        command = Command.request(RequestCode.UPDATE_CONSUMER_OFFSET, header, oneway=oneway)
        if oneway:
            link.duplex().send_oneway(command)
        else:
            link.request(command, self._timeout_s)

    def consumer_ids(self, group: str, link: BrokerLink) -> list[str]:
        """Return the client ids of a group's members, as that broker knows them."""
        command = Command.request(RequestCode.GET_CONSUMER_LIST_BY_GROUP, ConsumerGroupHeader(group))
        return decode_consumer_list(view_of(link.request_over_duplex(command, self._timeout_s)))

    def send_back(
        self,
        group: str,
        message: PulledMessage,
        delay_level: int,
        max_reconsume_times: int,
        origin_topic: str,
        last_error: str = "",
    ) -> str:
        """Give a message back to its broker, to be delivered again later (or to the dead letters).

        Returns the broker's remark: empty, but where it took the message and keeps nothing of it.
        """
        header = ConsumerSendMsgBackHeader(
            offset=message.physical_offset,
            group=group,
            delay_level=delay_level,
            origin_msg_id=message.msg_id,
            origin_topic=origin_topic,
            max_reconsume_times=max_reconsume_times,
            last_error=last_error or None,
        )
        command = Command.request(RequestCode.CONSUMER_SEND_MSG_BACK, header)
        return self._routes.link(message.broker_name).request(command, SEND_BACK_TIMEOUT_S).remark or ""

    def check_subscription(
        self,
        link: BrokerLink,
        client_id: str,
        group: str,
        subscription: SubscriptionData,
        message_model: MessageModel,
    ) -> None:
        """46: have the broker judge expression and mode of a consumer; BrokerError says what is wrong."""
        check = ClientConfigCheck(client_id, group, subscription, message_model=message_model)
        body = encode_client_config_check(check)
        link.request(Command.request(RequestCode.CHECK_CLIENT_CONFIG, None, body), self._timeout_s)

    def unregister(self, link: BrokerLink, client_id: str, *, producer: str = "", consumer: str = "") -> None:
        """Leave a group, on the very connection the broker knows this client by."""
        header = UnregisterClientHeader(client_id, producer or None, consumer or None)
        link.duplex().call(Command.request(RequestCode.UNREGISTER_CLIENT, header), self._timeout_s)
