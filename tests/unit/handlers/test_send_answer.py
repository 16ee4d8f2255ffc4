"""The packed send answer is the command it stands for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.base.errors import FrameFault, InvalidParameter
from shmq.protocol.command import RESPONSE_FLAG, Command, Serialization, decode_frame, encode_command
from shmq.protocol.headers.send import SendMessageResponseHeader
from shmq.protocol.send_answer import pack_json_send_answer, pack_send_answer, unpack_send_answer

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


U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)


@given(U32, U32, U64, U64, st.sampled_from([None, False, True]), st.data())
def test_what_unpacks_is_what_the_codec_reads(
    opaque: int,
    queue_id: int,
    queue_offset: int,
    physical_offset: int,
    flushed: bool | None,
    data: st.DataObject,
) -> None:
    frame = bytearray(pack_send_answer(opaque, queue_id, queue_offset, physical_offset, flushed))
    if data.draw(st.booleans()):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    unpacked = unpack_send_answer(frame)
    try:
        command = decode_frame(bytes(frame))
        header = command.read_header(SendMessageResponseHeader)
    except (FrameFault, InvalidParameter):
        assert unpacked is None
        return
    plain = SendMessageResponseHeader(
        "",
        header.queue_id,
        header.queue_offset,
        physical_offset=header.physical_offset,
        flushed=header.flushed,
    )
    if unpacked is not None:
        assert (command.code, command.flag, command.remark, command.ext) == (0, RESPONSE_FLAG, None, None)
        assert header == plain
        assert unpacked == (
            *(command.opaque, header.queue_id, header.queue_offset, header.physical_offset),
            header.flushed,
        )


@given(
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.sampled_from([None, False, True]),
)
def test_what_was_packed_unpacks(opaque: int, queue_id: int, offset: int, flushed: bool | None) -> None:
    frame = pack_send_answer(opaque, queue_id, offset, offset, flushed)
    assert unpack_send_answer(frame) == (opaque, queue_id, offset, offset, flushed)
    assert unpack_send_answer(frame[:-1]) is None
    assert unpack_send_answer(frame + b"\xf6") is None


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
