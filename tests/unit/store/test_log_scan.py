"""The scan's short ways (windows of magics, neighbours of one size) see what single steps see."""

from __future__ import annotations

import mmap
import random

import numpy as np
import pytest

from shmq.model.record import MAGIC_V1, encode_blank, encode_record
from shmq.store import log_scan
from shmq.store.log_scan import ScanEnd, scan
from shmq.store.record_text import KINDS_COMPARED, kinds

SEGMENT = 2 << 20
TRAP = MAGIC_V1.to_bytes(4, "big", signed=True)


def record(body: bytes) -> bytes:
    encoded = encode_record(
        topic=b"Topic",
        body=body,
        properties=b"UNIQ_KEY\x01k\x02",
        queue_id=0,
        flag=0,
        sys_flag=0,
        born_timestamp=1,
        born_host=bytes(8),
        store_host=bytes(8),
    )
    return bytes(encoded)


def bodies(rng: random.Random) -> list[bytes]:
    """Runs of one size, mixed sizes, and bodies full of magics and of whole records."""
    made: list[bytes] = []
    while sum(map(len, made)) < SEGMENT // 2:
        size = rng.choice((1, 7, 200, 3_000))
        kind = rng.randrange(5)
        if kind < 2:
            made += [rng.randbytes(size)] * rng.choice((1, 3, 100, 700))
        elif kind < 4:
            made += [rng.randbytes(rng.randint(1, 400)) for _ in range(rng.randint(1, 200))]
        else:
            made += [TRAP * rng.randint(1, 60), record(b"inner") + TRAP, bytes(4) + TRAP]
    return made


def single_steps(data: mmap.mmap, start: int, stop: int, records_max: int) -> tuple[list[int], int, ScanEnd]:
    byte_stop = min(stop, start + log_scan.BATCH_BYTES)
    return log_scan._steps(data, start, byte_stop, stop, records_max)


@pytest.mark.parametrize("seed", range(20))
def test_the_chain_is_what_single_steps_find(seed: int) -> None:
    rng = random.Random(seed)
    data = mmap.mmap(-1, SEGMENT)
    position = 0
    for body in bodies(rng):
        encoded = record(body)
        if position + len(encoded) + 8 > SEGMENT:
            break
        data[position : position + len(encoded)] = encoded
        position += len(encoded)
    ending = rng.randrange(4)
    if ending == 1:
        data[position : position + 8] = encode_blank(SEGMENT - position)
    elif ending == 2:  # damage in the middle
        at = rng.randrange(position - 8)
        data[at : at + 8] = rng.randbytes(8)
    elif ending == 3:  # the log ends inside a record
        data[position - 5 : position] = bytes(5)
    start, limit = 0, rng.choice((16, 1_000, 16_384))
    stop = rng.choice((SEGMENT, position, position - 3))
    while True:
        expected, end_at, why = single_steps(data, start, stop, limit)
        starts, sizes, found_at, found_why = log_scan._chain(data, start, stop, limit)
        assert starts.tolist() == expected[: len(starts)]
        assert (found_at, found_why) == (end_at, why)
        assert len(starts) == len(expected)
        assert (starts + sizes).tolist() == [*starts.tolist()[1:], found_at][: len(starts)]
        if why is not ScanEnd.END or end_at >= stop or not expected:
            break
        start = end_at


def test_a_scan_judges_bodies_only_where_it_is_asked_to() -> None:
    data = mmap.mmap(-1, SEGMENT)
    encoded = bytearray(record(b"body"))
    encoded[28:36] = (0).to_bytes(8, "big")
    encoded[56:64] = (1).to_bytes(8, "big")
    data[: len(encoded)] = bytes(encoded)
    assert len(scan(data, 0, len(encoded), 0)) == 1
    data[89:90] = b"X"
    assert len(scan(data, 0, len(encoded), 0)) == 0
    assert len(scan(data, 0, len(encoded), 0, check_bodies=False)) == 1


@pytest.mark.parametrize("different", [1, KINDS_COMPARED, KINDS_COMPARED + 1, 300])
def test_kinds_number_every_value(different: int) -> None:
    values = np.array([random.Random(7).randrange(different) * 3 for _ in range(2_000)], np.int64)
    values = np.concatenate([values, np.arange(different) * 3])
    firsts, like = kinds(values)
    assert values[firsts][like].tolist() == values.tolist()
    assert len(firsts) == len(set(values.tolist()))
    assert len(kinds(values[:0])[0]) == 0
