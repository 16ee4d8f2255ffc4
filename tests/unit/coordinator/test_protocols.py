"""The internal protocol and the grant protocol: bodies there and back, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmq.protocol import internal
from shmq.protocol.codes import RequestCode
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.grant import (
    FILES_MAX,
    FileRequest,
    decode_file_requests,
    decode_grants,
    encode_file_requests,
    encode_grants,
)
from shmq.protocol.internal import GroupState, InternalCode, Snapshot, StatsReport

HEADERS = [
    internal.WorkerHelloHeader(2, 4711),
    internal.ClientOpenedHeader(7, "unix", "127.0.0.1:0@12", 12, 1000, 1000),
    internal.ClientHeader(7),
    internal.ForwardHeader(7),
    internal.ForwardAnswerHeader(),
    internal.ForwardAnswerHeader("lock:g@c", b"\x00\xff", 1_700_000_000_000),
    internal.TopicChangedHeader("t", True),
    internal.GroupChangedHeader("g", False),
    internal.ResolveTopicHeader("t", "TBW102", 4, 0, True),
    internal.ResolveGroupHeader("g"),
    internal.OffsetSlotsHeader("g", "t"),
    internal.ResetTakenHeader("g", "t", 3, 1 << 40),
    internal.KeptHeader(-1, "client", 0),
    internal.SettingChangedHeader("autoCreateTopicEnable", "false"),
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: type(header).__name__)
def test_headers_travel_whole(header: object) -> None:
    frame = b"".join(encode_command(Command.request(InternalCode.FORWARD, header, b"body")))
    found = decode_frame(frame)
    assert found.read_header(type(header)) == header and found.body_bytes() == b"body"


def test_codes_lie_in_their_own_range() -> None:
    assert all(30100 <= code <= 30199 for code in InternalCode)
    assert not {int(code) for code in InternalCode} & {int(code) for code in RequestCode}


NAME = st.text(min_size=1, max_size=20)
COUNT = st.integers(0, 1 << 50)
STATES = st.builds(
    GroupState,
    config=st.dictionaries(NAME, st.booleans() | COUNT | NAME, max_size=3),
    members=st.integers(0, 1000),
    message_model=st.sampled_from([None, "CLUSTERING", "BROADCASTING"]),
    subscriptions=st.dictionaries(NAME, st.dictionaries(NAME, NAME, max_size=2), max_size=3),
    resets=st.dictionaries(NAME, st.dictionaries(st.integers(0, 1000), COUNT, max_size=3), max_size=3),
)


@given(STATES)
def test_group_states_travel_whole(state: GroupState) -> None:
    assert GroupState.decode(state.encode()) == state


@given(st.dictionaries(NAME, STATES, max_size=3), st.booleans())
def test_snapshots_travel_whole(groups: dict[str, GroupState], settled: bool) -> None:
    snapshot = Snapshot({"t": {"perm": 6}}, groups, settled, 120_000)
    assert Snapshot.decode(snapshot.encode()) == snapshot


PAIR = st.tuples(COUNT, COUNT)


@given(st.dictionaries(NAME, PAIR, max_size=3), st.dictionaries(st.tuples(NAME, NAME), PAIR, max_size=3))
def test_reports_travel_whole(
    puts: dict[str, tuple[int, int]], gets: dict[tuple[str, str], tuple[int, int]]
) -> None:
    report = StatsReport(puts, gets, 1, 2, 3, 4, 5)
    assert StatsReport.decode(report.encode()) == report


@given(st.lists(st.builds(FileRequest, st.sampled_from(["log", "queue"]), NAME, COUNT, COUNT), max_size=20))
def test_file_requests_travel_whole(wanted: list[FileRequest]) -> None:
    assert decode_file_requests(encode_file_requests(wanted)) == wanted


@given(st.lists(st.booleans(), max_size=FILES_MAX))
def test_grants_travel_whole(granted: list[bool]) -> None:
    assert decode_grants(encode_grants(granted)) == granted


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"7",
        b"[7]",
        b'[["log","",0]]',
        b'[["other","",0,0]]',
        b'[["log","",0,-1]]',
        b'[["log",7,0,0]]',
        b'[["log","",0,1.5]]',
        b'[["log","",0,0,0]]',
        encode_file_requests([FileRequest("log", "", 0, 0)] * (FILES_MAX + 1)),
    ],
)
def test_other_file_requests_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"(?i)grant_files|kind|json|unexpected|input"):
        decode_file_requests(body)


@given(st.binary(max_size=200))
def test_rubbish_is_refused_and_nothing_else_happens(body: bytes) -> None:
    try:
        decode_file_requests(body)
    except ValueError:
        return
