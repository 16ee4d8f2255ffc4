"""Transactions on a real broker: what becomes visible, who is asked, what a death leaves."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shmq import (
    AdminClient,
    BrokerError,
    ClientFault,
    LocalTransactionState,
    Message,
    MessageExt,
    MessageIllegal,
    Producer,
    PullConsumer,
    PullStatus,
    SendStatus,
    TransactionProducer,
    TransactionSendResult,
    aio,
)
from shmq.admin import main
from shmq.admin.exits import ExitCode
from shmq.base.errors import SystemBusy
from shmq.embedded import Broker
from shmq.model.message_id import parse_offset_message_id
from shmq.model.names import (
    TRANSACTION_CHECK_MAX_TOPIC,
    TRANSACTION_GROUP,
    TRANSACTION_HALF_TOPIC,
    TRANSACTION_OP_HALF_TOPIC,
)
from shmq.model.properties import (
    PRODUCER_GROUP,
    TIMER_DELAY_MS,
    TRANSACTION_CHECK_TIMES,
    TRANSACTION_PREPARED,
)
from shmq.protocol.bodies.batch import BatchElement, encode_batch_elements
from shmq.protocol.codes import RequestCode, ResponseCode
from shmq.protocol.command import Command
from shmq.protocol.headers.offset import UpdateConsumerOffsetHeader
from shmq.protocol.headers.send import EndTransactionHeader, SendMessageV2Header
from shmq.store.check import check_store
from tests.helpers.waiting import wait_until

COMMIT, ROLLBACK, UNKNOWN = (
    LocalTransactionState.COMMIT_MESSAGE,
    LocalTransactionState.ROLLBACK_MESSAGE,
    LocalTransactionState.UNKNOW,
)
QUICK = {"brokerWorkers": "2", "transactionTimeOut": "300", "transactionCheckInterval": "100"}
HOURS_MS = 3_600_000


class Ledger:
    """A listener whose local transactions end as the argument says, and are looked up in `outcomes`."""

    def __init__(self, otherwise: LocalTransactionState | None = COMMIT) -> None:
        self.outcomes: dict[str, LocalTransactionState] = {}
        self.otherwise = otherwise
        self.executed: list[str] = []
        self.checks: list[tuple[MessageExt, float]] = []

    def execute_local_transaction(self, message: Any, argument: Any) -> LocalTransactionState | None:
        one = message if isinstance(message, Message) else message[0]
        self.executed.append(str(one.transaction_id))
        if isinstance(argument, BaseException):
            raise argument
        return argument if isinstance(argument, LocalTransactionState | None) else None

    def check_local_transaction(self, message: MessageExt) -> LocalTransactionState | None:
        self.checks.append((message, time.time() * 1000))
        return self.outcomes.get(message.transaction_id or "", self.otherwise)

    def checked(self, body: bytes) -> int:
        return sum(message.body == body for message, _ in self.checks)


@pytest.fixture(scope="module")
def quick() -> Iterator[Broker]:
    """A broker that asks soon, shared by the tests that use topics and groups of their own."""
    with Broker(**QUICK) as broker:
        yield broker
        assert list(check_store(Path(broker.store_root))) == []


def producer(broker: Broker, group: str, listener: Ledger | None = None, **more: Any) -> TransactionProducer:
    given = {"namesrv_addr": broker.namesrv_addr, **more}
    return TransactionProducer(group, listener or Ledger(), **given)


def bodies(broker: Broker, topic: str) -> list[bytes]:
    return [message.body for message in read_all(broker, topic)]


def read_all(broker: Broker, topic: str, group: str = "Reader") -> list[MessageExt]:
    """Everything in a topic, queue by queue."""
    found: list[MessageExt] = []
    with PullConsumer(group, namesrv_addr=broker.namesrv_addr) as reader:
        for queue in reader.fetch_subscribe_message_queues(topic):
            offset = 0
            while (result := reader.pull(queue, "*", offset, 32)).status is PullStatus.FOUND:
                found += result.messages
                offset = result.next_begin_offset
    return found


def end(
    of: TransactionProducer,
    sent: TransactionSendResult,
    state: int,
    *,
    queue_offset: int | None = None,
    physical_offset: int | None = None,
    group: str | None = None,
    from_check: bool = False,
) -> Command:
    """Send an outcome by hand, and wait for the answer."""
    header = EndTransactionHeader(
        group or of.producer_group,
        sent.queue_offset if queue_offset is None else queue_offset,
        parse_offset_message_id(sent.offset_msg_id)[1] if physical_offset is None else physical_offset,
        state,
        sent.msg_id,
        from_transaction_check=from_check,
    )
    link = of._path.link(sent.message_queue)
    return link.call(Command.request(RequestCode.END_TRANSACTION, header), 5.0)


def test_the_seed_sample_shows_a_then_c_only(quick: Broker) -> None:
    """Checklist 88 to 92: A commits, B rolls back, C is unknown and committed by its check."""
    ledger = Ledger()
    with producer(quick, "SampleGroup", ledger) as sending:
        sending.create_topic("TransactionTopic", 1)
        results = []
        for number, (tag, state) in enumerate((("TagA", COMMIT), ("TagB", ROLLBACK), ("TagC", UNKNOWN))):
            message = Message("TransactionTopic", tag.encode(), tag, f"KEY{number}")
            result = sending.send_message_in_transaction(message, state)
            assert (result.send_status, result.local_transaction_state) == (SendStatus.SEND_OK, state)
            assert result.transaction_id == result.msg_id == message.transaction_id == message.unique_key
            results.append(result)
        wait_until(lambda: bodies(quick, "TransactionTopic") == [b"TagA", b"TagC"], 10, "A and C are there")
        wait_until(lambda: end(sending, results[1], ROLLBACK).code != 0, 10, "B has ended")
        assert {message.body for message, _ in ledger.checks} == {b"TagC"}
    found = read_all(quick, "TransactionTopic")
    assert [(m.transaction_id, m.keys, m.tags) for m in found] == [
        (results[0].transaction_id, "KEY0", "TagA"),
        (results[2].transaction_id, "KEY2", "TagC"),
    ]
    for one in found:
        assert one.transaction_id == one.msg_id
        assert one.sys_flag & 0xC == 8
        assert not {TRANSACTION_PREPARED, TRANSACTION_CHECK_TIMES, "REAL_TOPIC"} & set(one.properties)


@pytest.mark.parametrize("raised", [None, RuntimeError("no database")], ids=["nothing", "an error"])
def test_no_outcome_is_unknown_and_a_check_follows(quick: Broker, raised: Exception | None) -> None:
    """Checklist 93. The check has a queue of its own: a thread, or the caller's executor."""
    topic, ledger = f"Unknown{raised is None}", Ledger()
    with concurrent.futures.ThreadPoolExecutor(1, "own-checks") as executor:
        threads: list[str] = []
        look = ledger.check_local_transaction

        def check(message: MessageExt) -> LocalTransactionState | None:
            threads.append(threading.current_thread().name)
            return look(message)

        ledger.check_local_transaction = check  # type: ignore[method-assign]
        more = {"check_executor": executor} if raised else {}
        with producer(quick, f"{topic}Group", ledger, **more) as sending:
            result = sending.send_message_in_transaction(Message(topic, b"x"), raised)
            assert result.local_transaction_state is UNKNOWN
            wait_until(lambda: bodies(quick, topic) == [b"x"], 10, "the check commits it")
    assert threads[0].startswith("own-checks" if raised else "shmq-check")


def test_a_half_message_stored_less_durably_is_rolled_back(
    quick: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist 94: the local transaction is not run."""
    ledger = Ledger()
    with producer(quick, "WeakGroup", ledger) as sending:
        send = sending._path.send

        def weaker(*arguments: Any) -> Any:
            result = send(*arguments)
            result.send_status = SendStatus.FLUSH_DISK_TIMEOUT
            return result

        monkeypatch.setattr(sending._path, "send", weaker)
        result = sending.send_message_in_transaction(Message("Weak", b"x"), COMMIT)
        assert result.local_transaction_state is ROLLBACK
        assert not ledger.executed
        wait_until(lambda: "ended already" in (end(sending, result, COMMIT).remark or ""), 10, "it has ended")
    assert bodies(quick, "Weak") == []


DYING = """
import os, sys
from shmq import Message, TransactionProducer
class Dying:
    def execute_local_transaction(self, message, argument):
        print(message.transaction_id, flush=True)
        os._exit(9)
    def check_local_transaction(self, message):
        return None
sending = TransactionProducer(sys.argv[2], Dying(), namesrv_addr=sys.argv[1])
sending.start()
sending.send_message_in_transaction(Message(sys.argv[3], b"orphan"))
"""


def leave_an_orphan(broker: Broker, group: str, topic: str) -> str:
    """Have a producer die between its half message and the outcome; return the transaction's id."""
    command = [sys.executable, "-c", DYING, broker.namesrv_addr, group, topic]
    died = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert died.returncode == 9, died.stderr
    return died.stdout.strip()


@pytest.mark.long
@pytest.mark.parametrize("over", ["unix", "tcp"])
def test_another_member_is_asked_when_a_producer_has_died(quick: Broker, over: str) -> None:
    """Checklist 95 and 96: nothing happens without a live member; one that never sent anything is asked."""
    topic, group = f"Orphan-{over}", f"Orphans-{over}"
    with Producer("Maker", namesrv_addr=quick.namesrv_addr) as maker:
        maker.create_topic(topic, 1)
    transaction = leave_an_orphan(quick, group, topic)
    ledger = Ledger(None)
    ledger.outcomes[transaction] = COMMIT
    address = quick.namesrv_addr if over == "unix" else quick.namesrv_tcp_addr
    with producer(quick, group, ledger, namesrv_addr=address, use_unix_socket=over == "unix"):
        wait_until(lambda: bodies(quick, topic) == [b"orphan"], 10, "the other one commits it")
    message = ledger.checks[0][0]
    assert message.properties[TRANSACTION_CHECK_TIMES] == "1"
    assert (message.topic, message.transaction_id) == (topic, transaction)


def test_members_are_asked_in_turn(quick: Broker) -> None:
    first, second = Ledger(UNKNOWN), Ledger(UNKNOWN)
    with (
        producer(quick, "Turns", first, instance_name="one") as sending,
        producer(quick, "Turns", second, instance_name="two", topics=("InTurn",)),
    ):
        result = sending.send_message_in_transaction(Message("InTurn", b"x"), UNKNOWN)
        wait_until(lambda: first.checked(b"x") > 1 and second.checked(b"x") > 1, 10, "both were asked")
        first.otherwise = second.otherwise = ROLLBACK
        wait_until(lambda: end(sending, result, ROLLBACK).code != 0, 10, "it has ended")
    assert bodies(quick, "InTurn") == []


@pytest.mark.long
def test_a_half_message_nobody_decides_is_checked_so_often_and_kept_aside(
    make_broker: Callable[..., Broker], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checklist 97, 98: exactly the checks allowed, none too early; resumed it is checked from the start."""
    logs = tmp_path / "logs"
    broker = make_broker(**QUICK, transactionCheckMax="3", logDir=str(logs))
    ledger = Ledger(UNKNOWN)
    with producer(broker, "Never", ledger) as sending:
        sent = sending.send_message_in_transaction(Message("Undecided", b"x", "TagA"), UNKNOWN)
        wait_until(
            lambda: len(read_all(broker, TRANSACTION_CHECK_MAX_TOPIC, "TOOLS_CONSUMER")) == 1, 20, "given up"
        )
        assert ledger.checked(b"x") == 3
        message, at_ms = ledger.checks[0]
        assert at_ms - message.born_timestamp >= 300
        assert [m.properties[TRANSACTION_CHECK_TIMES] for m, _ in ledger.checks] == ["1", "2", "3"]
        assert any("transaction_given_up" in file.read_text() for file in logs.rglob("*.log"))
        assert "ended already" in (end(sending, sent, COMMIT).remark or "")
        (kept,) = read_all(broker, TRANSACTION_CHECK_MAX_TOPIC, "TOOLS_CONSUMER")
        ledger.otherwise = COMMIT
        command = ["resumeCheckHalfMessage", "-n", broker.namesrv_addr, "-i", kept.offset_msg_id]
        assert main.run(command) == ExitCode.OK
        assert f"{kept.offset_msg_id} is open again" in capsys.readouterr().out
        wait_until(lambda: bodies(broker, "Undecided") == [b"x"], 10, "the new check commits it")
        assert ledger.checks[-1][0].properties[TRANSACTION_CHECK_TIMES] == "1"
        with (
            AdminClient(broker.namesrv_addr) as admin,
            pytest.raises(BrokerError, match=TRANSACTION_CHECK_MAX_TOPIC),
        ):
            admin.resume_check_half_message(sent.offset_msg_id)


@pytest.mark.long
def test_its_own_immunity_is_kept_and_costs_no_check(make_broker: Callable[..., Broker]) -> None:
    """Checklist 99 to 101: the larger of both times counts; the 20 rounds of waiting are no checks (RocketMQ
    would give up)."""
    broker = make_broker(**QUICK | {"transactionTimeOut": "1200"}, transactionCheckMax="12")
    ledger = Ledger()
    with producer(broker, "Immune", ledger) as sending:
        for seconds in ("1", "2", "-1", "never"):
            message = Message("Immunity", seconds.encode())
            message.put_user_property("CHECK_IMMUNITY_TIME_IN_SECONDS", seconds)
            sending.send_message_in_transaction(message, UNKNOWN)
        wait_until(lambda: len(bodies(broker, "Immunity")) == 4, 20, "all are committed by checks")
    assert len({asked.body for asked, _ in ledger.checks}) == 4
    for asked, at_ms in ledger.checks:
        assert at_ms - asked.born_timestamp >= (2000 if asked.body == b"2" else 1200)
    assert read_all(broker, TRANSACTION_CHECK_MAX_TOPIC, "TOOLS_CONSUMER") == []


@pytest.mark.long
def test_what_an_outcome_must_name(make_broker: Callable[..., Broker]) -> None:
    """Checklist 102, 104, 105, 108: another group, wrong offsets, too late, twice: the answer says so."""
    broker = make_broker(brokerWorkers="2", transactionTimeOut="1", transactionCheckInterval="3600000")
    with producer(broker, "Named") as sending:
        sent = sending.send_message_in_transaction(Message("Naming", b"x"), UNKNOWN)
        other = sending.send_message_in_transaction(Message("Naming", b"y"), UNKNOWN)
        at = parse_offset_message_id(sent.offset_msg_id)[1]
        for wrong, text in (
            ({"group": "Others"}, "belongs to producer group 'Named'"),
            ({"queue_offset": sent.queue_offset + 1}, "no half message"),
            ({"queue_offset": 99}, "no half message"),
            ({"queue_offset": -1}, "no half message"),
            ({"physical_offset": at + 1}, "no half message"),
            ({"physical_offset": parse_offset_message_id(other.offset_msg_id)[1]}, "no half message"),
            ({"physical_offset": -1}, "no half message"),
            ({"physical_offset": 2**62}, "no half message"),
        ):
            answer = end(sending, sent, COMMIT, **wrong)
            assert answer.code == ResponseCode.SYSTEM_ERROR and text in (answer.remark or ""), wrong
        assert end(sending, sent, 7).code == ResponseCode.INVALID_PARAMETER
        assert end(sending, sent, UNKNOWN).code == ResponseCode.SUCCESS
        assert bodies(broker, "Naming") == []
        with AdminClient(broker.namesrv_addr) as admin:
            assert admin.broker_runtime_info(broker.tcp_addr)["halfMessages"] == "2"
        assert end(sending, sent, COMMIT).code == ResponseCode.SUCCESS
        for again in (COMMIT, ROLLBACK):
            answer = end(sending, sent, again)
            assert answer.code == ResponseCode.SYSTEM_ERROR and "ended already" in (answer.remark or "")
        assert end(sending, other, ROLLBACK).code == ResponseCode.SUCCESS
        assert end(sending, other, COMMIT).code == ResponseCode.SYSTEM_ERROR
        assert bodies(broker, "Naming") == [b"x"]
        late = Message("Naming", b"late")
        late.put_user_property("CHECK_IMMUNITY_TIME_IN_SECONDS", "1")
        sent = sending.send_message_in_transaction(late, UNKNOWN)
        time.sleep(1.05)  # its immunity must be over
        assert end(sending, sent, COMMIT).code == ResponseCode.ILLEGAL_OPERATION
        assert end(sending, sent, COMMIT, from_check=True).code == ResponseCode.SUCCESS
        assert sorted(bodies(broker, "Naming")) == [b"late", b"x"]


@pytest.mark.long
def test_a_late_outcome_for_an_earlier_copy_decides_the_newest(quick: Broker) -> None:
    """Appendix C: RocketMQ commits the earlier copy, and the newest once more."""
    ledger = Ledger(UNKNOWN)
    with producer(quick, "Late", ledger) as sending:
        sent = sending.send_message_in_transaction(Message("LateTopic", b"x"), UNKNOWN)
        wait_until(lambda: ledger.checked(b"x") >= 2, 10, "it was checked")
        answer = end(sending, sent, COMMIT)
        wait_until(lambda: bodies(quick, "LateTopic") == [b"x"], 10, f"it is committed {answer.remark}")
        asked = ledger.checks[0][0]
        answer = end(
            sending,
            sent,
            COMMIT,
            queue_offset=asked.queue_offset,
            physical_offset=asked.physical_offset,
            from_check=True,
        )
        assert "ended already" in (answer.remark or "")
        count = len(ledger.checks)
        other = sending.send_message_in_transaction(Message("LateTopic", b"y"), UNKNOWN)
        wait_until(lambda: ledger.checked(b"y") >= 2, 10, "two more rounds")
        assert ledger.checked(b"x") <= count
        end(sending, other, ROLLBACK)
    assert bodies(quick, "LateTopic") == [b"x"]


@pytest.mark.long
def test_transactions_may_be_refused(make_broker: Callable[..., Broker]) -> None:
    """Checklist 107."""
    broker = make_broker(brokerWorkers="1", rejectTransactionMessage="true")
    ledger = Ledger()
    with producer(broker, "Rejected", ledger) as sending:
        with pytest.raises(BrokerError, match="rejectTransactionMessage") as refused:
            sending.send_message_in_transaction(Message("Rejected", b"x"), COMMIT)
        assert refused.value.code == ResponseCode.NO_PERMISSION and not ledger.executed
        assert sending.send(Message("Rejected", b"plain")).send_status is SendStatus.SEND_OK


@pytest.mark.long
def test_more_open_ones_than_allowed_are_refused_until_the_oldest_is_decided(
    make_broker: Callable[..., Broker],
) -> None:
    broker = make_broker(brokerWorkers="2", transactionPendingMax="10", transactionTimeOut="60000")
    with (
        producer(broker, "Pending", retry_times_when_send_failed=0) as sending,
        AdminClient(broker.namesrv_addr) as admin,
    ):
        sent = [
            sending.send_message_in_transaction(Message("Pending", b"%d" % n), UNKNOWN) for n in range(10)
        ]
        with pytest.raises(SystemBusy, match="transactionPendingMax"):
            sending.send_message_in_transaction(Message("Pending", b"x"), COMMIT)
        end(sending, sent[1], COMMIT)  # the oldest still lies before it: a start would have to read as much
        with pytest.raises(SystemBusy, match="transactionPendingMax"):
            sending.send_message_in_transaction(Message("Pending", b"x"), COMMIT)
        assert sending.send(Message("Pending", b"plain")).send_status is SendStatus.SEND_OK
        assert admin.broker_runtime_info(broker.tcp_addr)["halfMessages"] == "9"
        end(sending, sent[0], ROLLBACK)
        sending.send_message_in_transaction(Message("Pending", b"y"), COMMIT)
    assert sorted(bodies(broker, "Pending")) == [b"1", b"plain", b"y"]


@pytest.mark.long
@pytest.mark.parametrize("decision", ["COMMIT_MESSAGE", "ROLLBACK_MESSAGE", "UNKNOW"])
def test_a_listener_of_the_operator_decides_in_the_end(
    make_broker: Callable[..., Broker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    """Checklist 109, and 110: what is older than the retention goes there without a check."""
    (tmp_path / "own_listener.py").write_text(
        "from shmq import LocalTransactionState\n"
        "class Mine:\n"
        "    def resolve_discard_msg(self, message):\n"
        f"        with open({str(tmp_path / 'called')!r}, 'a') as note:\n"
        "            note.write(message.topic + message.body.decode() + '\\n')\n"
        f"        return LocalTransactionState[{decision!r}]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    broker = make_broker(**QUICK, transactionCheckListener="own_listener:Mine")
    ledger = Ledger()
    with producer(broker, "Own", ledger) as sending:
        monkeypatch.setattr("shmq.client.outgoing.now_ms", lambda: int(time.time() * 1000) - 100 * HOURS_MS)
        sent = sending.send_message_in_transaction(Message("OwnTopic", b"old"), UNKNOWN)
        wait_until((tmp_path / "called").exists, 10, "the listener was asked")
        wait_until(lambda: "ended already" in (end(sending, sent, ROLLBACK).remark or ""), 10, "decided")
        assert (tmp_path / "called").read_text() == "OwnTopicold\n"
        assert ledger.checks == []
        expected = {"COMMIT_MESSAGE": [b"old"]}.get(decision, [])
        assert bodies(broker, "OwnTopic") == expected
        kept = read_all(broker, TRANSACTION_CHECK_MAX_TOPIC, "TOOLS_CONSUMER")
        assert len(kept) == (decision == "UNKNOW")


def test_a_batch_is_all_or_nothing(quick: Broker) -> None:
    ledger = Ledger()
    with producer(quick, "Batches", ledger) as sending:
        sending.create_topic("Batched", 4)
        batch = [Message("Batched", b"%d" % n, f"Tag{n}", f"K{n}") for n in range(40)]
        result = sending.send_message_in_transaction(batch, COMMIT)
        assert ledger.executed == [result.transaction_id] == [batch[39].transaction_id]
        sending.send_message_in_transaction(
            [Message("Batched", b"never"), Message("Batched", b"no")], ROLLBACK
        )
        checked = [Message("Batched", b"late1"), Message("Batched", b"late2")]
        sending.send_message_in_transaction(checked, UNKNOWN)
        wait_until(lambda: len(bodies(quick, "Batched")) == 42, 10, "both batches are there")
        found = read_all(quick, "Batched")
        first = [m for m in found if m.transaction_id == result.transaction_id]
        assert [(m.body, m.tags, m.keys) for m in first] == [(m.body, m.tags, m.keys) for m in batch]
        assert len({m.queue_id for m in first}) == 1 and len({m.msg_id for m in first}) == 40
        assert {m.body for m in found} - {m.body for m in batch} == {b"late1", b"late2"}
        for wrong in (
            [],
            [Message("Batched", b"x"), Message("Other", b"x")],
            [Message("Batched", b"x"), Message("Batched", b"x", delay_level=1)],
            [Message("Batched", b"x"), Message("Batched", b"")],
            [Message("Batched", b"x" * (5 << 20))],
        ):
            with pytest.raises((ClientFault, MessageIllegal)):
                sending.send_message_in_transaction(wrong, COMMIT)


@pytest.mark.long
def test_a_delayed_one_waits_from_its_commit_on(make_broker: Callable[..., Broker]) -> None:
    """Checklist 103: RocketMQ's client drops the delay. The same for a message for any moment."""
    broker = make_broker(**QUICK, messageDelayLevel="1s 2s", timerMaxDelaySec="100")
    with producer(broker, "Delays") as sending:
        level, timer = Message("DelayedOnes", b"x", delay_level=1), Message("DelayedOnes", b"y")
        timer.properties[TIMER_DELAY_MS] = "700"
        committed_ms = time.time() * 1000
        for message in (level, timer):
            sending.send_message_in_transaction(message, COMMIT)
        assert level.delay_level == 1
        wait_until(lambda: len(bodies(broker, "DelayedOnes")) == 2, 10, "they are delivered")
        for found in read_all(broker, "DelayedOnes"):
            waits = {b"x": (1000, level), b"y": (700, timer)}[found.body]
            assert found.store_timestamp - committed_ms >= waits[0] - 1
            assert found.transaction_id == waits[1].transaction_id
            assert not [name for name in found.properties if name.startswith("SHMQ_") or name == "DELAY"]
        timer.properties[TIMER_DELAY_MS] = "200000"
        with pytest.raises(BrokerError, match="timerMaxDelaySec"):
            sending.send_message_in_transaction(timer, COMMIT)


def test_bad_input_is_refused_before_anything_is_stored(quick: Broker) -> None:
    with pytest.raises(ClientFault, match="transaction_listener"):
        TransactionProducer("NoListener", namesrv_addr=quick.namesrv_addr).start()
    TransactionProducer("NeverStarted", Ledger()).shutdown()
    with producer(quick, "Bad") as sending:
        sending.create_topic("BadTopic", 1)
        sending.transaction_listener = None
        with pytest.raises(ClientFault, match="transaction_listener"):
            sending.send_message_in_transaction(Message("BadTopic", b"x"))
        sending.transaction_listener = ledger = Ledger()
        for wrong in (
            Message("BadTopic", b""),
            Message("bad topic", b"x"),
            Message(TRANSACTION_HALF_TOPIC, b"x"),
            Message(TRANSACTION_OP_HALF_TOPIC, b"x"),
            Message(TRANSACTION_CHECK_MAX_TOPIC, b"x"),
        ):
            with pytest.raises(ClientFault):
                sending.send_message_in_transaction(wrong, COMMIT)
        long = Message("BadTopic", b"x")
        long.put_user_property("much", "v" * 32_480)
        with pytest.raises(BrokerError, match="half message"):
            sending.send_message_in_transaction(long, COMMIT)
        nobodys = Message("BadTopic", b"x")
        nobodys.properties[TRANSACTION_PREPARED] = "true"
        with pytest.raises(BrokerError, match=PRODUCER_GROUP):
            sending.send(nobodys)
        elements = encode_batch_elements([BatchElement(b"one", b""), BatchElement(b"two", b"")])
        link = sending._path.link(sending.fetch_publish_message_queues("BadTopic")[0])
        for code, body, properties in (
            (RequestCode.SEND_BATCH_MESSAGE, elements, ""),  # a batch that claims to be a half message
            (RequestCode.SEND_MESSAGE_V2, elements, "SHMQ_HALF_BATCH\x013\x02"),
            (RequestCode.SEND_MESSAGE_V2, elements[:-1], "SHMQ_HALF_BATCH\x012\x02"),
            (RequestCode.SEND_MESSAGE_V2, elements, "SHMQ_HALF_BATCH\x012\x02DELAY\x011\x02"),
        ):
            marks = f"TRAN_MSG\x01true\x02PGROUP\x01Bad\x02{properties}"
            header = SendMessageV2Header("Bad", "BadTopic", "TBW102", 4, 0, 0, 1, 0, marks)
            answer = link.call(Command.request(code, header, body), 5.0)
            assert answer.code == ResponseCode.MESSAGE_ILLEGAL, (code, properties, answer.remark)
        assert not ledger.executed
        assert bodies(quick, "BadTopic") == []


def test_nobody_consumes_the_brokers_own_topics(quick: Broker) -> None:
    with producer(quick, "Own") as sending:
        sent = sending.send_message_in_transaction(Message("Hidden", b"x"), UNKNOWN)
        for topic in (TRANSACTION_HALF_TOPIC, TRANSACTION_OP_HALF_TOPIC):
            with pytest.raises(BrokerError) as refused:
                read_all(quick, topic, "Curious")
            assert refused.value.code == ResponseCode.NO_PERMISSION
        assert end(sending, sent, ROLLBACK).code in (ResponseCode.SUCCESS, ResponseCode.SYSTEM_ERROR)
        link = sending._path.link(sent.message_queue)
        header = UpdateConsumerOffsetHeader(TRANSACTION_GROUP, TRANSACTION_HALF_TOPIC, 0, 0)
        answer = link.call(Command.request(RequestCode.UPDATE_CONSUMER_OFFSET, header), 5.0)
        assert answer.code == ResponseCode.NO_PERMISSION


@pytest.mark.long
def test_an_open_one_outlives_its_segment(make_broker: Callable[..., Broker]) -> None:
    """Retention moves it to the log's end before its segment goes."""
    hour = f"{(time.localtime().tm_hour + 12) % 24:02d}"
    broker = make_broker(
        brokerWorkers="1",
        transactionCheckInterval="3600000",
        mappedFileSizeCommitLog=str(256 << 10),
        cleanResourceInterval="100",
        deleteCommitLogFilesInterval="0",
        deleteWhen=hour,
        flushCommitLogThoroughInterval="200",
    )
    segments = Path(broker.store_root) / "commitlog"
    with producer(broker, "Kept") as sending:
        sending.create_topic("Outliving", 1)
        sent = sending.send_message_in_transaction(Message("Outliving", b"x"), UNKNOWN)
        for _ in range(30):
            sending.send([Message("Filling", bytes(2000)) for _ in range(20)])
        old = sorted(segments.iterdir())[:3]
        for segment in old:
            os.utime(segment, (1, 1))
        link = sending._path.link(sent.message_queue)
        assert link.call(Command.request(RequestCode.DELETE_EXPIRED_COMMITLOG), 5.0).code == 0
        wait_until(lambda: not any(segment.exists() for segment in old), 20, "the old segments are gone")
        assert "no half message" in (end(sending, sent, COMMIT).remark or "")
        queue = sent.message_queue._replace(topic=TRANSACTION_HALF_TOPIC, queue_id=0)
        with AdminClient(broker.namesrv_addr) as admin:
            kept = admin.message_at(queue, sending.max_offset(queue) - 1)
        assert kept is not None and kept.transaction_id == sent.transaction_id
        place = {"queue_offset": kept.queue_offset, "physical_offset": kept.physical_offset}
        assert end(sending, sent, COMMIT, **place).code == ResponseCode.SUCCESS
        assert bodies(broker, "Outliving") == [b"x"]


def test_a_coroutine_listener_commits_and_is_asked(quick: Broker) -> None:
    """`shmq.aio`: both parts run in the program's loop."""

    class Listener:
        def __init__(self) -> None:
            self.tasks: list[object] = []

        async def execute_local_transaction(self, message: Message, argument: Any) -> Any:
            await asyncio.sleep(0)
            self.tasks.append(asyncio.get_running_loop())
            return argument

        async def check_local_transaction(self, message: MessageExt) -> LocalTransactionState:
            self.tasks.append(asyncio.get_running_loop())
            return COMMIT

    async def run() -> None:
        listener = Listener()
        async with aio.TransactionProducer("AioGroup", listener, namesrv_addr=quick.namesrv_addr) as sending:
            outcomes = (COMMIT, ROLLBACK, UNKNOWN)
            sends = (
                sending.send_message_in_transaction(Message("AioTx", state.name.encode()), state)
                for state in outcomes
            )
            results = await asyncio.gather(*sends)
            assert tuple(result.local_transaction_state for result in results) == outcomes
            wanted = [b"COMMIT_MESSAGE", b"UNKNOW"]
            deadline = time.monotonic() + 10
            while sorted(await asyncio.to_thread(bodies, quick, "AioTx")) != wanted:
                assert time.monotonic() < deadline
        assert len(listener.tasks) >= 4 and set(listener.tasks) == {asyncio.get_running_loop()}

    asyncio.run(run())
    with pytest.raises(ClientFault, match="transaction_listener"):
        asyncio.run(aio.TransactionProducer("AioGroup").start())
