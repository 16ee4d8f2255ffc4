from __future__ import annotations

import zlib

from shmq.base.checksum import body_crc, crc32


def test_crc_is_that_of_zlib_and_continues_from_a_value() -> None:
    assert crc32(b"Hello RocketMQ") == zlib.crc32(b"Hello RocketMQ")
    assert crc32(b"MQ", crc32(b"Rocket")) == crc32(b"RocketMQ")


def test_body_crc_has_no_sign_bit() -> None:
    assert crc32(b"Hello") == 0xF7D18982
    assert body_crc(b"Hello") == 2010220930


def test_any_buffer_will_do() -> None:
    assert body_crc(memoryview(bytearray(b"Hello"))) == body_crc(b"Hello")
