"""Each example runs as its documentation says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shmq.embedded import Broker

EXAMPLES = [
    *("producer", "async_producer", "oneway_producer", "batch_producer", "consumer", "pull_consumer"),
    "any_delay",
    *("lite_pull_consumer", "pull_schedule", "queue_listener", "request_reply", "sql_filter", "tag_filter"),
    *("broadcasting", "delayed_messages", "ordered_producer", "ordered_consumer", "transaction_producer"),
]


def run_example(name: str, *arguments: str) -> str:
    """What an example prints; its listener says what it did: otherwise every message comes again."""
    command = [sys.executable, "-m", f"shmq.examples.{name}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "listener_answer_unknown" not in done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_explains_itself(name: str) -> None:
    assert f"python -m shmq.examples.{name}" in run_example(name, "--help")


def test_sync_messages_are_pulled_in_order(shared_broker: Broker) -> None:
    where = ("--namesrv", shared_broker.namesrv_addr, "--topic", "ExampleSync")
    sent = run_example("producer", *where, "--count", "8")
    assert sent.count("SEND_OK") == 8
    pulled = run_example("pull_consumer", *where, "--group", "ExamplePull")
    for number in range(8):
        assert f"Hello shmq {number}" in pulled
    assert "NO_NEW_MSG" in pulled


@pytest.mark.long
def test_async_oneway_and_batch_messages_reach_the_push_consumer(shared_broker: Broker) -> None:
    where = ("--namesrv", shared_broker.namesrv_addr, "--topic", "ExampleMixed")
    assert run_example("async_producer", *where, "--count", "20").count(" OK ") == 20
    assert "20 messages handed over" in run_example("oneway_producer", *where, "--count", "20")
    assert "60 messages from offset" in run_example("batch_producer", *where, "--count", "60")
    consumed = run_example("consumer", *where, "--group", "ExamplePush", "--count", "100")
    assert consumed.count("Hello shmq") == 100


@pytest.mark.long
def test_lite_and_scheduled_pulls_read_what_was_sent(shared_broker: Broker) -> None:
    where = ("--namesrv", shared_broker.namesrv_addr, "--topic", "ExamplePulled")
    run_example("producer", *where, "--count", "12")
    polled = run_example("lite_pull_consumer", *where, "--group", "ExampleLite", "--count", "12")
    scheduled = run_example("pull_schedule", *where, "--group", "ExampleSchedule", "--count", "12")
    for output in (polled, scheduled):
        assert sorted(line.split(" ", 2)[2] for line in output.splitlines()) == sorted(
            f"Hello shmq {number}" for number in range(12)
        )
    listened = run_example("queue_listener", *where, "--group", "ExampleListener", "--count", "1")
    assert "ExamplePulled: mine are 0, 1, 2, 3 of 4 queues" in listened


@pytest.mark.long
def test_an_sql_expression_selects_and_a_request_is_answered(shared_broker: Broker) -> None:
    where = ("--namesrv", shared_broker.namesrv_addr, "--topic")
    filtered = run_example("sql_filter", *where, "ExampleSql", "--group", "ExampleSqlGroup")
    assert "4 of 10 messages matched" in filtered
    tagged = run_example("tag_filter", *where, "ExampleTags", "--group", "ExampleTagsGroup")
    assert "7 of 10 messages matched" in tagged and "TagB" not in tagged
    asked = run_example("request_reply", *where, "ExampleAsk", "--group", "ExampleAskGroup")
    assert asked.splitlines() == [f"you said: question {number}" for number in range(3)]


@pytest.mark.long
def test_messages_wait_for_any_moment(shared_broker: Broker) -> None:
    where = ("--namesrv", shared_broker.namesrv_addr, "--topic", "ExampleAnyDelay")
    said = run_example("any_delay", *where, "--group", "ExampleAnyDelayGroup").splitlines()
    assert [line.split(" after ")[0] for line in said[1:]] == [*(f"delayed {n}" for n in range(3)), "put off"]
    assert said[0].startswith("taken back: ") and "taken back after" not in said


@pytest.mark.long
def test_the_steps_of_each_order_are_consumed_in_order(shared_broker: Broker) -> None:
    where = ("--namesrv", shared_broker.namesrv_addr, "--topic", "ExampleOrders")
    assert run_example("ordered_producer", *where, "--count", "5").count("finish") == 5
    consumed = run_example("ordered_consumer", *where, "--group", "ExampleOrdersGroup", "--count", "20")
    for number in range(5):
        steps = [line.split(": ")[2] for line in consumed.splitlines() if f"order {number}:" in line]
        assert steps == ["create", "pay", "push", "finish"]


@pytest.mark.long
def test_a_transaction_commits_rolls_back_or_is_checked(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker(transactionTimeOut="200", transactionCheckInterval="100")
    where = ("--namesrv", broker.namesrv_addr, "--topic", "ExampleTransaction")
    sent = run_example("transaction_producer", *where)
    assert [line.split()[1:] for line in sent.splitlines() if line.startswith("SEND_OK")] == [
        ["TagA", "COMMIT_MESSAGE"],
        ["TagB", "ROLLBACK_MESSAGE"],
        ["TagC", "UNKNOW"],
    ]
    assert "checked TagC: COMMIT_MESSAGE" in sent and "checked TagA" not in sent
    consumed = run_example("consumer", *where, "--group", "ExampleTransactionGroup", "--count", "2")
    assert "Hello shmq 0" in consumed and "Hello shmq 2" in consumed and "Hello shmq 1" not in consumed


@pytest.mark.long
def test_every_member_hears_a_broadcast_and_delayed_messages_come_later(
    shared_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCKETMQ_LOCAL_OFFSET_STORE_DIR", str(tmp_path))
    where = ("--namesrv", shared_broker.namesrv_addr, "--topic")
    heard = run_example("broadcasting", *where, "ExampleBroadcast", "--group", "ExampleBroadcastGroup")
    assert sorted(heard.splitlines()) == [
        f"{name}: Hello everybody {number}" for name in ("first", "second") for number in range(3)
    ]
    late = run_example(
        "delayed_messages", *where, "ExampleDelay", "--group", "ExampleDelayGroup", "--count", "1"
    )
    assert late.startswith("level 1 waited ") and float(late.split()[3]) >= 1
