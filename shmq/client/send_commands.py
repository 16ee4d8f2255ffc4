"""The send requests and their answers: single (310), RocketMQ's batch (320), log-ready batch (30001).
Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate

from shmq.base.errors import MessageIllegal
from shmq.client.addresses import parse_address
from shmq.client.links import BrokerLink
from shmq.client.outgoing import Outgoing
from shmq.client.outgoing_batch import OutgoingBatch
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_result import SendResult, SendStatus
from shmq.model.host import pack_host
from shmq.model.message_id import offset_message_id, parse_offset_message_id
from shmq.model.message_queue import MessageQueue
from shmq.protocol.codes import RequestCode, error_of
from shmq.protocol.command import Command
from shmq.protocol.headers.log_batch import SendLogBatchHeader
from shmq.protocol.headers.send import SendMessageResponseHeader, SendMessageV2Header

STORED = frozenset(SendStatus)
"""Response codes that mean: the message is stored."""


class SendCommands:
    """Builds the requests of one producer group."""

    def __init__(self, group: str, config: ProducerConfig) -> None:
        """Keep what every request names."""
        self._group = group
        self._config = config

    def single(self, outgoing: Outgoing, queue_id: int, *, oneway: bool = False) -> Command:
        """Return request 310 for one message."""
        header = SendMessageV2Header(
            self._group,
            outgoing.topic,
            self._config.create_topic_key,
            self._config.default_topic_queue_nums,
            queue_id,
            outgoing.sys_flag,
            outgoing.born_timestamp,
            outgoing.message.flag,
            outgoing.properties.decode(),
        )
        return Command.request(RequestCode.SEND_MESSAGE_V2, header, outgoing.body, oneway=oneway)

    def batch(self, batch: OutgoingBatch, queue_id: int) -> Command:
        """Return request 320, RocketMQ's batch; MessageIllegal when it is over the size limit."""
        body = batch.elements()
        self._check_size(len(body))
        wait = "true" if batch.messages[0].wait_store_msg_ok else "false"
        header = SendMessageV2Header(
            self._group,
            batch.topic,
            self._config.create_topic_key,
            self._config.default_topic_queue_nums,
            queue_id,
            0,
            batch.born_timestamp,
            0,
            f"UNIQ_KEY\x01{batch.keys[0]}\x02WAIT\x01{wait}\x02",
            batch=True,
        )
        return Command.request(RequestCode.SEND_BATCH_MESSAGE, header, body)

    def log_batch(self, batch: OutgoingBatch, queue_id: int) -> tuple[Command, list[int]]:
        """Return request 30001 for a local shmq broker, and the records' sizes."""
        records, sizes = batch.records(queue_id)
        self._check_size(len(records))
        header = SendLogBatchHeader(
            self._group,
            batch.topic,
            queue_id,
            len(sizes),
            struct.pack(f"<{len(sizes)}I", *sizes),
            self._config.create_topic_key,
            self._config.default_topic_queue_nums,
        )
        return Command.request(RequestCode.SEND_LOG_BATCH, header, records), sizes

    def _check_size(self, size: int) -> None:
        if size > self._config.max_message_size:
            raise MessageIllegal(
                f"the batch has {size} bytes encoded, at most {self._config.max_message_size} are allowed: "
                "split it (MessageSplitter)"
            )


def read_result(response: Command, link: BrokerLink, queue: MessageQueue, unique_key: str) -> SendResult:
    """Turn the answer to one message, or to a whole batch, into a result; BrokerError for a refusal."""
    header = read_stored(response)
    offset_id = header.msg_id
    if not offset_id and header.physical_offset is not None:
        offset_id = offset_message_id(store_host(link), header.physical_offset)
    return SendResult(
        SendStatus(response.code),
        unique_key,
        MessageQueue(queue.topic, queue.broker_name, header.queue_id),
        header.queue_offset,
        offset_id,
        header.transaction_id,
        header.msg_region or "DefaultRegion",
        header.trace_on != "false",
        header.recall_handle,
    )


def read_stored(response: Command) -> SendMessageResponseHeader:
    """Return the header of an answer that says "stored"; BrokerError for any other."""
    if response.code not in STORED:
        raise error_of(response.code, response.remark)
    return response.read_header(SendMessageResponseHeader)


def log_batch_offsets(
    header: SendMessageResponseHeader, link: BrokerLink, sizes: Sequence[int]
) -> tuple[bytes, list[int]]:
    """Return the store host and each record's physical offset: the records of a batch lie back to back."""
    if header.physical_offset is not None:
        host, first = store_host(link), header.physical_offset
    else:
        host, first = parse_offset_message_id(header.msg_id)
    return host, list(accumulate(sizes[:-1], initial=first))


def store_host(link: BrokerLink) -> bytes:
    """Return the broker's address as records hold it: the TCP address that routes name."""
    address = parse_address(link.tcp_address)
    return pack_host(address.host, address.port)
