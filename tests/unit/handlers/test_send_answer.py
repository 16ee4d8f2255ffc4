"""The packed send answer is the command it stands for."""

from __future__ import annotations

import pytest

from shmq.protocol.command import Command, Serialization, decode_frame, encode_command
from shmq.protocol.headers.send import SendMessageResponseHeader
from shmq.protocol.send_answer import pack_json_send_answer, pack_send_answer

NUMBERS = [(0, 0, 0, 0), (1, 3, 17, 4096), (0x7FFFFFFF, 65535, 2**40, 2**62)]


@pytest.mark.parametrize(("opaque", "queue_id", "queue_offset", "physical_offset"), NUMBERS)
def test_the_packed_answer_decodes_to_the_same_command(
    opaque: int, queue_id: int, queue_offset: int, physical_offset: int
) -> None:
    request = Command(30001, opaque=opaque)
    header = SendMessageResponseHeader("", queue_id, queue_offset, physical_offset=physical_offset)
    plain = decode_frame(b"".join(bytes(b) for b in encode_command(request.response(0, header=header))))
    packed = decode_frame(pack_send_answer(opaque, queue_id, queue_offset, physical_offset))
    for part in ("code", "flag", "opaque", "remark", "ext", "fields", "body", "serialization"):
        assert getattr(packed, part) == getattr(plain, part), part
    assert packed.read_header(SendMessageResponseHeader) == header


@pytest.mark.parametrize(("opaque", "queue_id", "queue_offset", "position"), [*NUMBERS, (-7, 1, 2, 3)])
def test_the_packed_answer_in_json_is_the_same_bytes(
    opaque: int, queue_id: int, queue_offset: int, position: int
) -> None:
    request = Command(310, opaque=opaque, serialization=Serialization.JSON)
    msg_id, key = f"{position:032X}", "7F0000010001A"
    header = SendMessageResponseHeader(
        msg_id, queue_id, queue_offset, key, msg_region="DefaultRegion", trace_on="true"
    )
    plain = b"".join(bytes(b) for b in encode_command(request.response(0, header=header)))
    assert pack_json_send_answer(opaque, msg_id, queue_id, queue_offset, key, "DefaultRegion") == plain
