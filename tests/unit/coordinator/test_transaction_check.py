"""A round of checks: who is asked, who is left alone, who is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shmq.base.errors import ConfigFault
from shmq.broker import outstanding_checks
from shmq.broker.check_listener import TransactionCheckListener, load_check_listener
from shmq.broker.client_key import Client, ClientKey
from shmq.broker.clients import ClientTable
from shmq.coordinator import transaction_check
from shmq.coordinator.transaction_check import TransactionCheck
from shmq.model.message_ext import MessageExt
from shmq.model.names import TRANSACTION_CHECK_MAX_TOPIC
from shmq.model.transaction import LocalTransactionState
from shmq.protocol.command import Command, decode_frame, encode_command
from shmq.protocol.headers.send import CheckTransactionStateHeader
from tests.helpers.store import OpenStore
from tests.helpers.transaction_world import COMMIT, TransactionWorld

INTERVAL_MS = 100
UNKNOWN = LocalTransactionState.UNKNOWN


class Clock:
    """The wall clock of the checks; born timestamps of test records are 1,700,000,000,000."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000 + 10_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms


class Checks:
    """A TransactionCheck with its producers, and what it has sent them."""

    def __init__(self, world: TransactionWorld, listener: TransactionCheckListener | None = None) -> None:
        self.sent: list[tuple[int, MessageExt, CheckTransactionStateHeader]] = []
        self.clients = ClientTable()
        self.clock = Clock()
        self.now_ms = 0
        self.settled = True
        settings = replace(
            world.store.settings, transaction_check_interval=INTERVAL_MS, transaction_check_max=3
        )
        self.check = TransactionCheck(
            world.transactions,
            self.clients,
            self,  # type: ignore[arg-type]  # only pushes
            lambda: self.settled,
            settings,
            listener or TransactionCheckListener(),
            self.clock,  # type: ignore[arg-type]  # two of its methods
            lambda name, n: None,
        )

    def push(self, key: ClientKey, request: Command) -> None:
        received = decode_frame(b"".join(encode_command(request)))
        header = received.read_header(CheckTransactionStateHeader)
        self.sent.append((key.conn_id, MessageExt(bytes(received.body_bytes())), header))

    def producer(self, number: int, group: str = "G") -> None:
        client = Client(ClientKey(2, number), f"c{number}", 0, 0, "peer")
        self.clients.beat_producer(client, group, 0)

    def round(self) -> None:
        """Run one whole round."""
        due = self.now_ms
        while due <= self.now_ms + INTERVAL_MS // 2:
            self.now_ms = due
            due = self.check.step(self.now_ms)
        self.now_ms = due


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TransactionWorld]:
    with OpenStore(tmp_path / "store") as opened:
        yield TransactionWorld(opened)


def test_producers_are_asked_in_turn_about_the_newest_copy(world: TransactionWorld) -> None:
    checks = Checks(world)
    checks.producer(1)
    checks.producer(2)
    world.half()
    checks.round()
    checks.round()
    assert [key for key, _, _ in checks.sent] == [1, 2]
    for number, (_, message, header) in enumerate(checks.sent, 1):
        assert (message.topic, message.queue_id, message.body) == ("T", 0, b"x")
        assert message.properties["TRANSACTION_CHECK_TIMES"] == str(number)
        assert header.tran_state_table_offset == message.queue_offset == number
        assert header.commit_log_offset == message.physical_offset
        assert header.msg_id == header.transaction_id == message.msg_id
    checks.round()
    checks.round()
    assert len(checks.sent) == 3 and world.bodies(TRANSACTION_CHECK_MAX_TOPIC) == [b"x"]
    assert world.transactions.open_count == 0


def test_without_a_producer_nothing_is_copied_and_others_go_on(world: TransactionWorld) -> None:
    """RocketMQ copies what nobody can be asked about in every round."""
    checks = Checks(world)
    checks.producer(1)
    world.half(b"lonely", PGROUP="Away")
    world.half(b"known")
    for _ in range(5):
        checks.round()
    assert {message.body for _, message, _ in checks.sent} == {b"known"}
    assert len(checks.sent) == 3 and world.transactions.high == 5
    checks.producer(2, "Away")
    checks.round()
    assert checks.sent[-1][1].properties["TRANSACTION_CHECK_TIMES"] == "1"
    assert checks.sent[-1][0] == 2


def test_what_a_start_would_have_to_read_too_long_is_put_back(
    world: TransactionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = Checks(world)
    monkeypatch.setattr(transaction_check, "OVER_MAX", 1)
    world.half(PGROUP="Away", CHECK_IMMUNITY_TIME_IN_SECONDS="1000000000")
    over = [world.half(b"%d" % number) for number in range(2)]
    world.end(over[0])
    checks.round()
    assert world.cursors.half == 0
    world.end(over[1])
    checks.round()
    assert (world.cursors.half, world.transactions.open_count, world.transactions.high) == (1, 1, 4)
    assert world.transactions.window == 1
    checks.round()
    assert checks.sent == [] and world.transactions.high == 4


def test_many_open_ones_are_neither_copied_nor_all_read_while_nobody_can_be_asked(
    world: TransactionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Putting back what is open would make a start's work no less."""
    monkeypatch.setattr(transaction_check, "OVER_MAX", 1)
    checks, read = Checks(world), []
    for number in range(200):
        world.half(b"%d" % number)
    half_at = world.transactions.half_at
    monkeypatch.setattr(world.transactions, "half_at", lambda offset: read.append(offset) or half_at(offset))
    checks.round()
    assert read == [0] and world.transactions.high == 200


def test_those_of_a_turn_are_put_back_in_one_claim_and_each_is_asked_about(
    world: TransactionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lonely one, an ended one and one that is just being decided lie between them."""
    checks, claims = Checks(world), []
    checks.producer(1)
    for number in range(3):
        world.half(b"%d" % number)
    ended = world.half(b"ended")
    world.half(b"lonely", PGROUP="Away")
    halves = [world.half(b"%d" % number) for number in range(5, 9)]
    world.end(ended)
    append = world.store.store.append
    monkeypatch.setattr(
        world.store.store, "append", lambda requests: claims.append(len(requests)) or append(requests)
    )
    checks.round()
    assert claims == [3 + 4 + 1]  # the last marks four as ended, as one before them stays
    assert [message.body for _, message, _ in checks.sent] == [b"%d" % n for n in (0, 1, 2, 5, 6, 7, 8)]
    assert [header.tran_state_table_offset for _, _, header in checks.sent] == list(range(9, 16))
    assert world.cursors.half == 3
    for restarted in (False, True):
        if restarted:
            world.start()
        assert world.transactions.open_count == 8
        assert world.transactions.next_open(0) == 4 and world.transactions.next_open(5) == 9
    world.end(halves[3])
    assert world.bodies() == [b"ended", b"8"]


def test_nobody_is_asked_more_than_it_can_hold_and_the_rest_is_no_check(
    world: TransactionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outstanding_checks, "ASKED_MAX", 2)
    monkeypatch.setattr(transaction_check, "TURN_MAX", 1)
    checks = Checks(world)
    checks.producer(1)
    for number in range(5):
        world.half(b"%d" % number)
    world.half(b"other", PGROUP="Quick")
    checks.producer(2, "Quick")

    def asked() -> list[bytes]:
        return [message.body for _, message, _ in checks.sent]

    for _ in range(4):
        due = checks.check.step(checks.now_ms)
    assert asked() == [b"0", b"1"] and due == transaction_check.RETRY_MS
    answers = [(header.tran_state_table_offset, header.commit_log_offset) for _, _, header in checks.sent]
    for state in (UNKNOWN, UNKNOWN, COMMIT):  # one of them twice
        asyncio.run(world.transactions.end("G", *answers[0], state, from_check=True))
    for _ in range(3):
        checks.check.step(checks.now_ms)
    assert asked() == [b"0", b"1", b"2"] and world.bodies() == [b"0"]
    checks.now_ms = INTERVAL_MS  # the next round is due: this one ends, and nobody else is in vain
    for _ in range(4):
        checks.check.step(checks.now_ms)
    assert asked() == [b"0", b"1", b"2", b"other"]
    for _ in range(3):
        checks.check.step(checks.now_ms)
    assert asked() == [b"0", b"1", b"2", b"other", b"3", b"4"]
    assert {message.properties["TRANSACTION_CHECK_TIMES"] for _, message, _ in checks.sent} == {"1"}


def test_large_ones_are_put_back_in_several_claims(
    world: TransactionWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction_check, "ASK_BYTES_MAX", 2000)
    checks, claims = Checks(world), []
    checks.producer(1)
    for number in range(6):
        world.half(b"%d" % number * 600)
    append = world.store.store.append
    monkeypatch.setattr(
        world.store.store, "append", lambda requests: claims.append(len(requests)) or append(requests)
    )
    checks.round()
    assert claims == [2, 2, 2] and len(checks.sent) == 6 and world.cursors.half == 6


def test_the_young_wait_and_a_clock_set_back_checks_at_once(world: TransactionWorld) -> None:
    checks = Checks(world)
    checks.producer(1)
    world.half()
    checks.clock.ms = 1_700_000_000_000 + 6_000
    checks.round()
    assert checks.sent == []
    checks.clock.ms = 1_700_000_000_000 - 1
    checks.round()
    assert len(checks.sent) == 1


def test_nobody_is_asked_before_all_workers_have_told_whom_they_hold(world: TransactionWorld) -> None:
    checks = Checks(world)
    world.half()
    checks.settled = False
    assert checks.check.step(0) == transaction_check.UNSETTLED_MS
    assert world.transactions.high == 1


def test_unreadable_ones_are_passed_over(world: TransactionWorld) -> None:
    checks = Checks(world)
    checks.producer(1)
    world.store.send("RMQ_SYS_TRANS_HALF_TOPIC", b"no half message")
    world.half()
    checks.round()
    assert len(checks.sent) == 1 and world.cursors.half == 2


def test_a_listener_is_found_by_its_name_or_the_start_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "listeners_of_a_test.py").write_text(
        "class Good:\n    def resolve_discard_msg(self, message):\n        return None\n"
        "class Without:\n    pass\n"
        "class Broken:\n    def __init__(self):\n        raise OSError('no database')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert type(load_check_listener("")) is TransactionCheckListener
    assert load_check_listener("listeners_of_a_test:Good").resolve_discard_msg(None) is None  # type: ignore[arg-type]
    for wrong in ("nowhere:X", "listeners_of_a_test:Nobody", "listeners_of_a_test:Broken", "a.b"):
        with pytest.raises(ConfigFault, match=r"package\.module:Class"):
            load_check_listener(wrong)
    with pytest.raises(ConfigFault, match="resolve_discard_msg"):
        load_check_listener("listeners_of_a_test:Without")


class Raising(TransactionCheckListener):
    """An operator's listener with a defect."""

    def resolve_discard_msg(self, message: MessageExt) -> LocalTransactionState | None:
        raise RuntimeError(message.topic)


def test_a_listener_that_fails_costs_no_message(world: TransactionWorld) -> None:
    checks = Checks(world, Raising())
    world.half(TRANSACTION_CHECK_TIMES="3")
    checks.round()
    assert world.bodies(TRANSACTION_CHECK_MAX_TOPIC) == [b"x"]
