"""Sends in JSON whose like was read before: read as the general reader reads them, or left to it."""

from __future__ import annotations

import json
import random

import pytest

from shmq.base.errors import FrameFault, InvalidParameter
from shmq.protocol.codes import LanguageCode
from shmq.protocol.header_table import codec_of
from shmq.protocol.headers.send import SendMessageHeader
from shmq.protocol.json_header import decode_json_header
from shmq.protocol.known_json_sends import LEARN_EVERY, KnownJsonSends

PROPERTIES = "KEYS\x01order-1\x02UNIQ_KEY\x01FD0000\x02WAIT\x01true\x02TAGS\x01TagA\x02"
EXT = {
    "a": "Group",
    "b": "Topic",
    "c": "TBW102",
    "d": "4",
    "e": "0",
    "f": "0",
    "g": "1795295512399",
    "h": "0",
    "i": PROPERTIES,
    "j": "0",
    "k": "false",
    "m": "false",
    "n": "broker",
}


def header(opaque: int = 7, ext: dict[str, str] | None = None, **changes: object) -> bytes:
    """As RocketMQ's Java client writes it."""
    members: dict[str, object] = {
        "code": 310,
        "extFields": {**EXT, **(ext or {})},
        "flag": 0,
        "language": "JAVA",
        "opaque": opaque,
        "serializeTypeCurrentRPC": "JSON",
        "version": 479,
        **changes,
    }
    return json.dumps(members, separators=(",", ":")).encode()


def general(raw: bytes) -> tuple[int, int, int, SendMessageHeader] | None:
    """What the general reader makes of it; None for what is refused or no plain send."""
    try:
        code, flag, opaque, language, version, remark, ext = decode_json_header(memoryview(raw))
        if (code, flag, remark) != (310, 0, None) or ext is None:
            return None
        return opaque, language, version, codec_of(SendMessageHeader).from_ext(ext)
    except (FrameFault, InvalidParameter):
        return None


def known(reader: KnownJsonSends, raw: bytes) -> tuple[int, int, int, SendMessageHeader] | None:
    """What the quick reader makes of it."""
    found = reader.read(raw)
    if found is None:
        return None
    opaque, language, version, fields = found
    return opaque, language, version, codec_of(SendMessageHeader).from_fields(fields)


def learn(reader: KnownJsonSends, raw: bytes) -> None:
    """Have it looked at, whichever turn it is."""
    for _ in range(LEARN_EVERY):
        reader.learn(raw, decode_json_header(memoryview(raw)))


@pytest.fixture
def reader() -> KnownJsonSends:
    made = KnownJsonSends()
    learn(made, header())
    return made


def test_nothing_is_known_before_it_was_learnt() -> None:
    assert KnownJsonSends().read(header()) is None


@pytest.mark.parametrize(
    "raw",
    [
        header(),
        header(1),
        header(0x7FFFFFFF),
        header(ext={"e": "1"}),
        header(ext={"e": "999999999"}),
        header(ext={"g": "9999999999999"}),
        header(ext={"i": ""}),
        header(ext={"i": "TAGS\x01!#~ [],{}:\x02"}),
        header(ext={"i": "looks like ,opaque:5,"}),
    ],
)
def test_a_like_send_is_read_as_by_the_general_reader(reader: KnownJsonSends, raw: bytes) -> None:
    assert known(reader, raw) == general(raw) != None  # noqa: E711
    assert known(reader, raw)[1:3] == (LanguageCode.JAVA, 479)  # type: ignore[index]


@pytest.mark.parametrize(
    "raw",
    [
        header(-1),
        header(0),
        header(1 << 31),
        header(opaque="7"),
        header(flag=2),
        header(code=10),
        header(remark="why"),
        header(ext={"b": "Other"}),
        header(ext={"e": "-1"}),
        header(ext={"e": "01"}),
        header(ext={"e": ""}),
        header(ext={"e": "2147483648"}),
        header(ext={"g": "123"}),
        header(ext={"g": "-123456789012"}),
        header(ext={"h": "1"}),
        header(ext={"i": "TAGS\x01\u00e4\x02"}),
        header(ext={"i": 'TAGS\x01"\x02'}),
        header(ext={"i": "TAGS\x01\\\x02"}),
        header(ext={"i": "TAGS\x01\\u0001\x02"}),
        header(ext={"i": "TAGS\x01\t\x02"}),
        header(ext={"i": "TAGS\x01\x00\x02"}),
        header(ext={"j": "1"}),
        header(ext={"z": "one more"}),
        header().replace(b"\\u0001", b"\x01"),
        header().replace(b'"opaque":7', b'"opaque":07'),
        header().replace(b'"opaque":7', b'"opaque":7.0'),
        header().replace(b'"opaque":7', b'"opaque": 7'),
        header() + b" ",
        header()[:-1],
        b"",
    ],
)
def test_what_is_not_like_it_is_left_to_the_general_reader(reader: KnownJsonSends, raw: bytes) -> None:
    assert reader.read(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        header(flag=2),
        header(remark="why"),
        header(code=320),
        header(ext={"g": "12345"}),
        header().replace(b'"j":"0"', b'"i":"another","j":"0"'),
        header().replace(b'"h":"0"', b'"g":"1795295512399","h":"0"'),
        header().replace(b'"f":"0"', b'"e":"0","f":"0"'),
        header().replace(b'"a":"Group"', b'"x":{"e":"0"}'),
        header().replace(b'"version":479', b'"version":479,"opaque":8'),
        header().replace(b'"a":"Group"', b'"x":{"g":"1795295512399","i":"no"}'),
        header(ext={"i": "A" * 5000}),
    ],
)
def test_what_reads_otherwise_than_it_looks_is_never_read_wrongly(raw: bytes) -> None:
    """Twice the same name, names in inner objects: the general reader's word counts."""
    made = KnownJsonSends()
    learn(made, raw)
    changed = raw.replace(b"1795295512399", b"1795295512400").replace(b"TagA", b"TagB")
    elsewhere = changed.replace(b'"e":"0"', b'"e":"12"', 1)
    for one in (raw, changed, elsewhere, changed.replace(b'"opaque":7', b'"opaque":123')):
        assert known(made, one) in (None, general(one))


@pytest.mark.parametrize("seed", range(5))
def test_changed_bytes_are_never_read_otherwise_than_by_the_general_reader(
    reader: KnownJsonSends, seed: int
) -> None:
    rng = random.Random(seed)
    hits = 0
    for _ in range(2_000):
        raw = bytearray(header(rng.randrange(1, 1 << 31)))
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(raw))
            match rng.randrange(3):
                case 0:
                    raw[at] = rng.randrange(256)
                case 1:
                    del raw[at]
                case _:
                    raw[at:at] = rng.choice((b'"', b"\\", b"\\u0001", b"0", b"x", b'","i":"', b'"opaque":5'))
        found = known(reader, bytes(raw))
        assert found is None or found == general(bytes(raw)), raw
        hits += found is not None
    assert hits > 500


def test_many_kinds_are_kept_and_the_oldest_forgotten() -> None:
    made = KnownJsonSends()
    raws = [header(ext={"b": f"Topic{n:03d}"}) for n in range(600)]
    for raw in raws:
        learn(made, raw)
        assert known(made, raw) == general(raw)
    assert made.read(raws[0]) is None
