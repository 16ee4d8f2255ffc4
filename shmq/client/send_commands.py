"""The send requests and their answers: single (310), RocketMQ's batch (320), log-ready batch (30001).
Pure."""

from __future__ import annotations

import struct
from functools import partial

from shmq.base.errors import MessageIllegal
from shmq.client.links import BrokerLink
from shmq.client.outgoing import Outgoing, is_reply
from shmq.client.outgoing_batch import OutgoingBatch
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_result import SendResult, SendStatus, Text, durability_of
from shmq.client.send_template import SendTemplate
from shmq.model.message_id import offset_message_id, parse_offset_message_id
from shmq.model.message_queue import MessageQueue
from shmq.model.properties import SHMQ_WAIT_FOR, UNIQ_KEY, WAIT, encode_properties
from shmq.protocol.codes import RequestCode, error_of
from shmq.protocol.command import Command, encode_command
from shmq.protocol.headers.log_batch import SendLogBatchHeader
from shmq.protocol.headers.send import SendMessageResponseHeader, SendMessageV2Header

STORED: dict[int, SendStatus] = {int(status): status for status in SendStatus}
"""Response codes that mean: the message is stored."""
TEMPLATES_MAX = 4096

Buffer = bytes | bytearray | memoryview


class SendCommands:
    """Builds the requests of one producer group."""

    def __init__(self, group: str, config: ProducerConfig) -> None:
        """Keep what every request names."""
        self._group = group
        self._config = config
        self._templates: dict[str, SendTemplate] = {}

    def _header(self, outgoing: Outgoing, queue_id: int) -> SendMessageV2Header:
        return SendMessageV2Header(
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

    def single(self, outgoing: Outgoing, queue_id: int, *, oneway: bool = False) -> Command:
        """Return request 310 for one message, 325 for a reply."""
        header = self._header(outgoing, queue_id)
        reply = is_reply(outgoing.message)
        code = RequestCode.SEND_REPLY_MESSAGE_V2 if reply else RequestCode.SEND_MESSAGE_V2
        return Command.request(code, header, outgoing.body, oneway=oneway)

    def single_frame(self, outgoing: Outgoing, queue_id: int, opaque: int) -> list[Buffer]:
        """Return the frame of request 310 for a CBOR connection, from a template where that can say it."""
        topic = outgoing.topic
        template = self._templates.get(topic)
        if template is None:
            if len(self._templates) >= TEMPLATES_MAX:
                self._templates.clear()
            template = self._templates[topic] = SendTemplate(self._header(outgoing, queue_id))
        frame = None if is_reply(outgoing.message) else template.frame(outgoing, queue_id, opaque)
        if frame is None:
            command = self.single(outgoing, queue_id)
            command.opaque = opaque
            frame = encode_command(command)
        return frame

    def batch(self, batch: OutgoingBatch, queue_id: int) -> Command:
        """Return request 320, RocketMQ's batch; MessageIllegal when it is over the size limit."""
        body = batch.elements()
        self._check_size(len(body))
        first = batch.messages[0]
        outer = {UNIQ_KEY: batch.keys[0], WAIT: "true" if first.wait_store_msg_ok else "false"}
        if asked_for := first.get_property(SHMQ_WAIT_FOR):
            outer[SHMQ_WAIT_FOR] = asked_for
        header = SendMessageV2Header(
            self._group,
            batch.topic,
            self._config.create_topic_key,
            self._config.default_topic_queue_nums,
            queue_id,
            0,
            batch.born_timestamp,
            0,
            encode_properties(outer).decode(),
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


def read_result(
    response: Command, link: BrokerLink, queue: MessageQueue, unique_key: Text, offset_id: Text = ""
) -> SendResult:
    """Turn the answer to one message, or to a whole batch, into a result; BrokerError for a refusal.

    Without an `offset_id` it is the broker's own, or made of the physical offset it names.
    """
    header = read_stored(response)
    if not offset_id:
        offset_id = header.msg_id
        if not offset_id and header.physical_offset is not None:
            offset_id = partial(_offset_id, link, header.physical_offset)
    return SendResult(
        STORED[response.code],
        unique_key,
        queue if queue.queue_id == header.queue_id else queue._replace(queue_id=header.queue_id),
        header.queue_offset,
        offset_id,
        transaction_id=header.transaction_id,
        region_id=header.msg_region or "DefaultRegion",
        trace_on=header.trace_on != "false",
        recall_handle=header.recall_handle,
        durability=durability_of(header.flushed),
    )


def _offset_id(link: BrokerLink, physical_offset: int) -> str:
    """Return the broker's id of a message; most senders never ask."""
    return offset_message_id(link.store_host, physical_offset)


def read_stored(response: Command) -> SendMessageResponseHeader:
    """Return the header of an answer that says "stored"; BrokerError for any other."""
    if response.code not in STORED:
        raise error_of(response.code, response.remark)
    return response.read_header(SendMessageResponseHeader)


def log_batch_place(header: SendMessageResponseHeader, link: BrokerLink) -> tuple[bytes, int]:
    """Return the store host and the physical offset of a log-ready batch's first record."""
    if header.physical_offset is not None:
        return link.store_host, header.physical_offset
    return parse_offset_message_id(header.msg_id)
