"""The quick reading of an answer says what the codec's says, or leaves it to the codec."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shmq.client.quick_answer import read_quick_answer
from shmq.client.send_commands import read_result
from shmq.model.host import pack_host
from shmq.model.message_queue import MessageQueue
from shmq.protocol.codes import ResponseCode
from shmq.protocol.command import Command, Serialization, decode_frame, encode_command
from shmq.protocol.headers.send import SendMessageResponseHeader
from shmq.protocol.send_answer import pack_send_answer

QUEUE = MessageQueue("T", "broker-a", 3)
LINK: Any = SimpleNamespace(store_host=pack_host("127.0.0.1", 10911))


def frame(
    header: SendMessageResponseHeader | None,
    code: int = 0,
    serialization: int = Serialization.CBOR,
    **parts: Any,
) -> bytes:
    request = Command.request(310, serialization=serialization)
    request.opaque = 77
    return b"".join(bytes(p) for p in encode_command(request.response(code, header=header, **parts)))


@pytest.mark.parametrize("flushed", [None, True, False])
def test_a_plain_answer_reads_as_the_codec_reads_it(flushed: bool | None) -> None:
    answer = pack_send_answer(77, 3, 41, 4096, flushed)
    quick = read_quick_answer(answer, 77, LINK, QUEUE, "KEY")
    plain = read_result(decode_frame(answer), LINK, QUEUE, "KEY")
    assert quick is not None
    for name in (
        "send_status",
        "msg_id",
        "offset_msg_id",
        "message_queue",
        "queue_offset",
        "durability",
        "region_id",
    ):
        assert getattr(quick, name) == getattr(plain, name), name
    assert quick.offset_msg_id == "7F00000100002A9F0000000000001000"


PLAIN = SendMessageResponseHeader("", 3, 41, physical_offset=4096)


@pytest.mark.parametrize(
    "answer",
    [
        frame(PLAIN, code=ResponseCode.SYSTEM_BUSY),
        frame(PLAIN, code=ResponseCode.FLUSH_DISK_TIMEOUT),
        frame(PLAIN, remark="something to say"),
        frame(PLAIN, body=b"a body"),
        frame(None),
        frame(PLAIN, serialization=Serialization.JSON),
        frame(SendMessageResponseHeader("", 2, 41, physical_offset=4096)),
        frame(SendMessageResponseHeader("ID", 3, 41)),
        frame(SendMessageResponseHeader("", 3, 41, physical_offset=1, transaction_id="t")),
        frame(SendMessageResponseHeader("", 3, 41, physical_offset=1, trace_on="false")),
        frame(PLAIN)[:8] + b"\xff" * (len(frame(PLAIN)) - 8),
        pack_send_answer(77, 2, 41, 4096),
        pack_send_answer(77, 3, 1 << 63, 4096),
    ],
)
def test_anything_else_is_left_to_the_codec(answer: bytes) -> None:
    assert read_quick_answer(answer, 77, LINK, QUEUE, "KEY") is None


def test_the_answer_to_another_request_is_not_taken() -> None:
    assert read_quick_answer(pack_send_answer(77, 3, 41, 4096), 78, LINK, QUEUE, "KEY") is None
