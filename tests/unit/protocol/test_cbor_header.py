"""The CBOR header: positional, versioned, hardened."""

import threading

import cbor2
import pytest

from shmq.base.errors import FrameFault
from shmq.protocol.cbor_header import decode_cbor_header, encode_cbor_header
from shmq.protocol.cbor_items import cbor_array


def read(raw):
    return decode_cbor_header(memoryview(raw))


GOOD = [1, 10, 0, 7, None, [1, "t", 5, -5, True, None, b"x"], {"k": "v"}]


def test_the_bytes_of_a_header_are_these():
    raw = encode_cbor_header(105, 0, 7, None, cbor_array([1, "T1", False]), None)
    assert raw == bytes.fromhex("87 01 1869 00 07 F6 83 01 62 5431 F4 F6")
    assert read(raw) == (105, 0, 7, None, [1, "T1", False], None)


def test_every_allowed_type_is_read():
    assert read(cbor2.dumps(GOOD)) == (10, 0, 7, None, GOOD[5], GOOD[6])


def test_a_later_version_may_have_more_members():
    assert read(cbor2.dumps([2, *GOOD[1:], "new"])) == (10, 0, 7, None, GOOD[5], GOOD[6])


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        5,
        "text",
        GOOD[:6],
        [0, *GOOD[1:]],
        ["1", *GOOD[1:]],
        [True, *GOOD[1:]],
        [1, "10", *GOOD[2:]],
        [1, 2**31, *GOOD[2:]],
        [1, 10, 0, -(2**31) - 1, *GOOD[4:]],
        [1, 10, 0, 2**64, *GOOD[4:]],
        [*GOOD[:4], 5, *GOOD[5:]],
        [*GOOD[:4], b"remark", *GOOD[5:]],
        [*GOOD[:5], "fields", None],
        [*GOOD[:5], [1, 2**64], None],
        [*GOOD[:6], ["k", "v"]],
        [*GOOD[:6], {"k": 1}],
        [*GOOD[:6], {b"k": "v"}],
        [*GOOD[:6], {1: "v"}],
        [*GOOD[:5], [[[[[]]]]], None],
    ],
    ids=repr,
)
def test_another_shape_is_refused(value):
    with pytest.raises(FrameFault):
        read(cbor2.dumps(value))


PREFIX = bytes.fromhex("87 01 0A 00 07 F6")
TAGGED = {
    "date": "C0 74 323031332D30332D32315432303A30343A30305A",
    "bignum": "C2 41 01",
    "fraction": "D81E 82 01 02",
    "regexp": "D823 61 61",
    "shared": "D81C 80",
    "reference": "D81D 00",
    "set": "D90102 81 01",
    "self described": "D9D9F7 01",
    "unknown tag": "D9FFFF 01",
    "ip address": "D834 44 01020304",
}


@pytest.mark.parametrize("item", TAGGED.values(), ids=TAGGED.keys())
def test_tags_are_refused(item):
    with pytest.raises(FrameFault):
        read(PREFIX + b"\x82\x01" + bytes.fromhex(item) + b"\xf6")


@pytest.mark.parametrize(
    "raw",
    [
        bytes.fromhex("9F 01 0A 00 07 F6 F6 F6 FF"),  # array of indefinite length
        PREFIX + bytes.fromhex("9F 01 FF F6"),
        PREFIX + bytes.fromhex("F6 BF FF"),  # map of indefinite length
        bytes.fromhex("87 01 0A 00 07 7F 61 61 FF F6 F6"),  # text of indefinite length
        PREFIX + bytes.fromhex("F6 A2 61 61 61 62 61 61 61 63"),  # the same key twice
        PREFIX + bytes.fromhex("9B FFFFFFFFFFFFFFFF"),  # an array of 2^64-1 members
        PREFIX + bytes.fromhex("9A 7FFFFFFF 01"),
        bytes.fromhex("87 01 0A 00 07 7B 7FFFFFFFFFFFFFFF"),  # a text of 2^63-1 bytes
        bytes.fromhex("87 01 0A 00 07 62 FFFE F6 F6"),  # no UTF-8
        b"\x81" * 5000,
        b"\xa1\x61a" * 5000,
    ],
    ids=lambda raw: raw[:12].hex(),
)
def test_hostile_forms_are_refused(raw):
    with pytest.raises(FrameFault):
        read(raw)


def test_every_truncation_and_every_trailing_byte_is_refused():
    raw = cbor2.dumps(GOOD)
    for end in range(len(raw)):
        with pytest.raises(FrameFault):
            read(raw[:end])
    for tail in (b"\0", b"\xf6", raw):
        with pytest.raises(FrameFault, match="left over"):
            read(raw + tail)


def test_a_broken_header_leaves_nothing_behind_for_the_next_one():
    raw = cbor2.dumps(GOOD)
    for broken in (raw[:5], raw + b"rest", b"\xff", b""):
        with pytest.raises(FrameFault):
            read(broken)
        assert read(raw)[0] == 10


def test_threads_read_side_by_side():
    headers = [
        encode_cbor_header(code, 0, code, None, cbor_array([1, f"t{code}"]), None) for code in range(8)
    ]
    wrong = []

    def work(code):
        for _ in range(300):
            if read(headers[code]) != (code, 0, code, None, [1, f"t{code}"], None):
                wrong.append(code)

    threads = [threading.Thread(target=work, args=(code,)) for code in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
