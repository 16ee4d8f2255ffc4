"""The template's frames say exactly what the codec's frames say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from shmq.client.outgoing import Outgoing
from shmq.client.producer_config import ProducerConfig
from shmq.client.send_commands import SendCommands
from shmq.model.message import Message
from shmq.protocol.command import Serialization, decode_frame, encode_command
from shmq.protocol.headers.send import SendMessageHeader

CONFIG = ProducerConfig()
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x01\x02"), min_size=1).filter(str.strip)


@settings(max_examples=30)
@given(
    topic=st.from_regex(r"[%|a-zA-Z0-9_-]{1,127}", fullmatch=True),
    body=st.binary(min_size=1, max_size=300),
    queue_id=st.integers(0, 1 << 20),
    opaque=st.integers(0, 0x7FFFFFFF),
    flag=st.integers(-(1 << 31), (1 << 31) - 1),
    tag=st.none() | TEXT,
    value=TEXT,
)
def test_both_ways_read_back_alike(
    topic: str, body: bytes, queue_id: int, opaque: int, flag: int, tag: str | None, value: str
) -> None:
    message = Message(topic, body, tags=tag, flag=flag)
    message.put_user_property("name", value)
    try:
        outgoing = Outgoing(message, CONFIG)
    except Exception:  # a reserved topic: not this test's business
        return
    commands = SendCommands("group", CONFIG)
    quick = decode_frame(b"".join(commands.single_frame(outgoing, queue_id, opaque)))
    command = commands.single(outgoing, queue_id)
    command.opaque = opaque
    command.serialization = Serialization.CBOR
    plain = decode_frame(b"".join(encode_command(command)))
    assert (quick.code, quick.opaque, quick.flag) == (plain.code, plain.opaque, plain.flag)
    assert quick.read_header(SendMessageHeader) == plain.read_header(SendMessageHeader)
    assert quick.body_bytes() == plain.body_bytes() == body
