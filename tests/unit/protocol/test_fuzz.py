"""Mutated real frames and bodies: read or refused with our own errors, never anything else."""

import contextlib
import random

import pytest

from shmq.base.errors import FrameFault, InvalidParameter, MessageIllegal, RemoteFault
from shmq.model.message_ext import decode_messages
from shmq.model.message_id import unique_key_block
from shmq.model.record_batch import check_batch, encode_batch
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements, iter_batch_elements
from shmq.protocol.command import Command, Serialization, decode_frame, encode_command
from shmq.protocol.frame import FrameDecoder
from shmq.protocol.headers.client import UnregisterClientHeader
from shmq.protocol.headers.log_batch import SendLogBatchHeader, pack_sizes
from shmq.protocol.headers.naming import RegisterBrokerHeader
from shmq.protocol.headers.pull import PullMessageHeader, PullMessageResponseHeader
from shmq.protocol.headers.send import SendMessageHeader, SendMessageV2Header
from tests.unit.protocol.body_corpus import ROUND_TRIPS

ROUNDS = 4000

HEADERS = [
    SendMessageV2Header("g", "t", "TBW102", 4, 0, 0, 17, 0, "UNIQ_KEY\x01AB\x02TAGS\x01T\x02"),
    PullMessageHeader("g", "t", 0, 0, 32, 7, 0, 15000, 17, "TagA || TagB"),
    PullMessageResponseHeader(0, 5, 0, 9),
    UnregisterClientHeader("c", "g"),
    RegisterBrokerHeader("b", "h:1", "c", "h:2", 0, compressed=True),
    SendLogBatchHeader("g", "t", 0, 3, pack_sizes([100, 100, 100]), "TBW102", 4),
]


def mutated(rng, raw, start=0):
    """Return `raw` with a few bytes changed, removed or doubled from `start` on."""
    found = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(start, len(found))
        kind = rng.randrange(4)
        if kind == 0:
            found[at] = rng.randrange(256)
        elif kind == 1:
            found[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and len(found) > start + 1:
            del found[at : at + rng.randint(1, 4)]
        else:
            found[at:at] = found[at : at + rng.randint(1, 8)]
        if len(found) <= start:
            break
    return bytes(found)


@pytest.mark.parametrize("serialization", Serialization)
@pytest.mark.parametrize("header", HEADERS, ids=lambda header: type(header).__name__)
def test_mutated_frames(serialization, header):
    rng = random.Random(f"{serialization}{type(header).__name__}")
    command = Command(310, opaque=7, header=header, body=b"body", ext={"k": "v"}, serialization=serialization)
    frame = b"".join(encode_command(command))
    for _ in range(ROUNDS):
        decoder = FrameDecoder()
        try:
            for found in decoder.feed(mutated(rng, frame)):
                decode_frame(found).read_header(type(header))
        except (FrameFault, InvalidParameter):
            pass


@pytest.mark.parametrize("name", sorted(ROUND_TRIPS))
def test_mutated_bodies(name):
    encode, decode, value = ROUND_TRIPS[name]
    rng = random.Random(name)
    body = encode(value)
    for _ in range(ROUNDS // 4):
        with contextlib.suppress(RemoteFault):
            decode(mutated(rng, body))


def test_mutated_batches():
    rng = random.Random("batch")
    body = encode_batch_elements([BatchElement(b"one", b"a\x01b\x02"), BatchElement(b"two" * 20, b"")])
    records, sizes = encode_batch(
        topic=b"t",
        queue_id=0,
        bodies=[b"x" * 20] * 8,
        properties=b"",
        born_timestamp=1,
        keys=unique_key_block(),
    )
    for _ in range(ROUNDS):
        for read in (
            lambda: list(iter_batch_elements(mutated(rng, body))),
            lambda: check_batch(mutated(rng, records), sizes, b"t", 0, 100),
            lambda: decode_messages(mutated(rng, records)),
        ):
            with contextlib.suppress(MessageIllegal):
                read()


def test_random_streams():
    rng = random.Random("stream")
    frame = b"".join(encode_command(Command(10, header=SendMessageHeader("g", "t", "d", 4, 0, 0, 1, 0))))
    for _ in range(ROUNDS):
        decoder = FrameDecoder()
        try:
            for _ in range(4):
                for found in decoder.feed(rng.choice([frame, frame[: rng.randrange(40)], rng.randbytes(12)])):
                    decode_frame(found)
        except FrameFault:
            pass
