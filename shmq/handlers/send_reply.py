"""The answer to a send, kept until its outcome is known: after the append, perhaps after the flush.

Made by the send handlers, settled by the worker's append turn or pending acks, in the worker's event loop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shmq.base.errors import ShmqError
from shmq.handlers.context import WorkerContext
from shmq.handlers.message_properties import MSG_REGION_DEFAULT
from shmq.model.record import properties_of
from shmq.model.timer import RecallHandle, waiting_timer
from shmq.model.wait_for import AS_CONFIGURED, Wait
from shmq.net.connection import Connection
from shmq.protocol.codes import LanguageCode, ResponseCode
from shmq.protocol.command import Command, Serialization
from shmq.protocol.headers.send import SendMessageResponseHeader
from shmq.protocol.send_answer import pack_json_send_answer, pack_send_answer
from shmq.store.append_request import AppendOutcome

_REMARKS: dict[int, str] = {
    ResponseCode.FLUSH_DISK_TIMEOUT: (
        "the message is stored, but not on the disk: that failed, or was late (syncFlushTimeout)"
    ),
    ResponseCode.SLAVE_NOT_AVAILABLE: "the message is stored here, but no slave is there to replicate it",
}


class SendReply:
    """One send waiting for its answer.

    ``sizes`` are those of a batch's records, None when only the first id is wanted.
    """

    __slots__ = (
        "_command",
        "_connection",
        "_count",
        "_ctx",
        "_queue_id",
        "_recall_handle",
        "_size",
        "_sizes",
        "_topic",
        "_unique_key",
        "wait",
    )

    def __init__(
        self,
        ctx: WorkerContext,
        connection: Connection,
        command: Command,
        *,
        topic: str,
        queue_id: int,
        unique_key: str,
        wait: Wait,
        count: int,
        size: int,
        sizes: Sequence[int] | None = None,
        recall_handle: str = "",
    ) -> None:
        """Remember whom to answer, and what to count when it is stored."""
        self._ctx = ctx
        self._connection = connection
        self._command = command
        self._topic = topic
        self._queue_id = queue_id
        self._unique_key = unique_key
        self._count = count
        self._size = size
        self._sizes = sizes
        self._recall_handle = recall_handle or None
        self.wait = wait

    def settle(self, outcome: AppendOutcome, code: int) -> None:
        """Answer a stored send: ``code`` is SUCCESS or FLUSH_DISK_TIMEOUT."""
        ctx = self._ctx
        queue_id = self._queue_id
        if outcome.queue_id is None:
            ctx.stats.put(self._topic, self._count, self._size)
        else:  # stored by an earlier send of the same sequence
            queue_id = outcome.queue_id
            if self._recall_handle is not None:
                self._recall_handle = self._first_handle(outcome.physical_offset)
        command = self._command
        if command.is_oneway:
            return
        wait = self.wait
        if wait.replicas or (ctx.needs_slave and wait is AS_CONFIGURED):
            code = ResponseCode.SLAVE_NOT_AVAILABLE
        first = outcome.physical_offset
        flushed = ctx.store.is_flushed(outcome.end)
        is_short = code == 0 and self._recall_handle is None
        if is_short and command.serialization == Serialization.CBOR and command.opaque >= 0:
            answer = pack_send_answer(command.opaque, queue_id, outcome.queue_offset, first, flushed)
            self._connection.send_raw((answer,))
            return
        if is_short and command.serialization == Serialization.JSON and self._has_plain_texts():
            answer = pack_json_send_answer(
                *(command.opaque, self._message_id(first), queue_id, outcome.queue_offset),
                *(self._unique_key, MSG_REGION_DEFAULT),
            )
            self._connection.send_raw((answer,))
            return
        if command.serialization == Serialization.CBOR:
            header = SendMessageResponseHeader(
                "",
                queue_id,
                outcome.queue_offset,
                recall_handle=self._recall_handle,
                physical_offset=first,
                flushed=flushed,
            )
        else:
            header = SendMessageResponseHeader(
                self._message_id(first),
                queue_id,
                outcome.queue_offset,
                self._unique_key or None,
                recall_handle=self._recall_handle,
                msg_region=MSG_REGION_DEFAULT,
                trace_on="true",
                flushed=flushed if command.language == LanguageCode.PYTHON else None,
            )
        self._connection.send(command.response(code, _REMARKS.get(code) if code else None, header))

    def _has_plain_texts(self) -> bool:
        """Tell whether an answer in JSON needs no escapes and does not say ``flushed``."""
        key = self._unique_key
        return self._command.language != LanguageCode.PYTHON and key.isascii() and key.isalnum()

    def _first_handle(self, physical_offset: int) -> str | None:
        """The recall handle of what an earlier send has stored: its moment is the one that counts."""
        record = self._ctx.store.record_at(physical_offset)
        timer = waiting_timer(bytes(properties_of(record))) if record is not None else None
        if timer is None:
            return None
        broker_name = self._ctx.settings.broker_name
        return RecallHandle(timer.real_topic, broker_name, timer.due_ms, self._unique_key).encode()

    def _message_id(self, first: int) -> str:
        """Offset message ids, comma-joined for a batch."""
        host = self._ctx.store_host_hex
        if self._sizes is None:
            return f"{host}{first:016X}"
        return joined_ids(host, first, self._sizes)

    def refuse(self, error: ShmqError) -> None:
        """Answer a send that was not stored."""
        self._ctx.stats.put_failed()
        if not self._command.is_oneway:
            self._connection.send(self._command.refusal(error))


def joined_ids(host: str, first: int, sizes: Sequence[int]) -> str:
    """Return the comma-joined offset message ids of records that lie back to back from ``first``."""
    positions = np.cumsum([first, *sizes[:-1]]).astype(">u8")
    rows = np.empty((len(sizes), len(host) + 17), np.uint8)
    rows[:, :-17] = np.frombuffer(host.encode(), np.uint8)
    digits = positions.tobytes().hex().upper().encode()
    rows[:, -17:-1] = np.frombuffer(digits, np.uint8).reshape(-1, 16)
    rows[:, -1] = ord(",")
    return rows.tobytes()[:-1].decode()
