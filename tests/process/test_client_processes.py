"""Clients in many processes: shared queues, members that come and go, forks, threads, restarted brokers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq import (
    AdminClient,
    ClientError,
    ClientFault,
    ConsumeConcurrentlyContext,
    ConsumeConcurrentlyStatus,
    ConsumeFromWhere,
    Message,
    MessageExt,
    Producer,
    PullConsumer,
    PullStatus,
    PushConsumer,
)
from shmq.embedded import Broker
from tests.helpers.client_processes import Member, ended_members, make_topic, owners
from tests.helpers.waiting import wait_until


@pytest.fixture
def members() -> Iterator[list[Member]]:
    """Members that are killed after the test, if it did not stop them."""
    with ended_members() as started:
        yield started


@pytest.mark.parametrize(
    "direct", [True, pytest.param(False, marks=pytest.mark.long)], ids=["direct", "socket"]
)
def test_a_group_shares_the_queues_and_loses_nothing_when_members_come_and_go(
    shared_broker: Broker, tmp_path: Path, members: list[Member], direct: bool
) -> None:
    topic, group = f"Share{direct}", f"ShareGroup{direct}"
    make_topic(shared_broker, topic, 8)
    for number in range(2):
        members.append(Member(shared_broker, group, topic, tmp_path / str(number), direct=direct))
    for member in members:
        member.wait_ready()
    wait_until(lambda: sorted(owners(shared_broker, group, topic).values()) == [4, 4], limit_s=20)
    sent: set[tuple[int, int]] = set()
    with Producer("ShareProducer", namesrv_addr=shared_broker.namesrv_addr) as producer:

        def send(count: int) -> None:
            results = [producer.send_async(Message(topic, b"m%d" % n)) for n in range(count)]
            sent.update((r.message_queue.queue_id, r.queue_offset) for r in (f.result(20) for f in results))

        send(2000)
        members.append(Member(shared_broker, group, topic, tmp_path / "2", direct=direct))
        members[2].wait_ready()
        send(2000)
        wait_until(lambda: sorted(owners(shared_broker, group, topic).values()) == [2, 3, 3], limit_s=20)
        members[0].stop()  # says goodbye: the others take over at once
        send(2000)
        wait_until(lambda: sorted(owners(shared_broker, group, topic).values()) == [4, 4], limit_s=10)
        members[1].kill()  # does not: its broken connection tells the broker
        send(2000)
        wait_until(lambda: list(owners(shared_broker, group, topic).values()) == [8], limit_s=20)
    assert len(sent) == 8000
    wait_until(lambda: {place for member in members for place in member.got} == sent, limit_s=30)
    members[2].stop()
    with AdminClient(shared_broker.namesrv_addr) as admin:
        table = admin.consume_stats(group, topic).offset_table
    assert all(offsets.consumer_offset == offsets.broker_offset for offsets in table.values())


@pytest.mark.long
def test_more_members_than_queues_leave_some_without_any(
    shared_broker: Broker, tmp_path: Path, members: list[Member]
) -> None:
    make_topic(shared_broker, "Few", 2)
    for number in range(3):
        members.append(Member(shared_broker, "FewGroup", "Few", tmp_path / str(number)))
    for member in members:
        member.wait_ready()
    wait_until(lambda: sorted(owners(shared_broker, "FewGroup", "Few").values()) == [0, 1, 1], limit_s=20)


@pytest.mark.long
def test_short_lived_processes_each_deliver_what_they_sent(shared_broker: Broker) -> None:
    script = (
        "import sys; from shmq import Message, Producer\n"
        "p = Producer('Short', namesrv_addr=sys.argv[1]); p.start()\n"
        "p.send(Message('ShortLived', b'sync ' + sys.argv[2].encode()))\n"
        "p.send_async(Message('ShortLived', b'async ' + sys.argv[2].encode()))\n"
    )  # no shutdown: the end of the process must not lose the async message
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for start in range(0, 8, 4):
        running = [
            subprocess.Popen(
                [sys.executable, "-c", script, shared_broker.namesrv_addr, str(n)], env=environment
            )
            for n in range(start, start + 4)
        ]
        assert [process.wait(30) for process in running] == [0] * 4
    bodies = pull_everything(shared_broker, "ShortLived")
    assert sorted(bodies) == sorted(b"%s %d" % (kind, n) for kind in (b"sync", b"async") for n in range(8))


def pull_everything(broker: Broker, topic: str) -> list[bytes]:
    bodies: list[bytes] = []
    with PullConsumer("PullEverything", namesrv_addr=broker.namesrv_addr) as consumer:
        for queue in consumer.fetch_subscribe_message_queues(topic):
            offset = 0
            while (result := consumer.pull(queue, "*", offset, 100)).status is PullStatus.FOUND:
                bodies += [bytes(message.body) for message in result.messages]
                offset = result.next_begin_offset
    return bodies


def test_many_threads_share_one_producer(shared_broker: Broker) -> None:
    with Producer("Threads", namesrv_addr=shared_broker.namesrv_addr) as producer:
        errors: list[BaseException] = []

        def work(thread: int) -> None:
            try:
                for number in range(100):
                    message = Message("ManyThreads", b"%d %d" % (thread, number))
                    if number % 2:
                        producer.send(message, timeout_ms=10_000)
                    else:
                        producer.send_async(message, timeout_ms=10_000).result(20)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not errors
    assert sorted(pull_everything(shared_broker, "ManyThreads")) == sorted(
        b"%d %d" % (t, n) for t in range(16) for n in range(100)
    )


def test_a_forked_child_goes_on_sending_over_its_own_connections(shared_broker: Broker) -> None:
    with Producer("Fork", namesrv_addr=shared_broker.namesrv_addr) as producer:
        producer.send(Message("Forked", b"parent before"))
        parent_id = producer.client_id
        consumer = PushConsumer("ForkGroup", namesrv_addr=shared_broker.namesrv_addr)
        consumer.subscribe("Forked")
        consumer.register_message_listener(
            lambda messages, context: ConsumeConcurrentlyStatus.CONSUME_SUCCESS
        )
        consumer.start()
        children = []
        for number in range(3):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    assert producer.client_id != parent_id
                    producer.send(Message("Forked", b"child %d sync" % number))
                    producer.send_async(Message("Forked", b"child %d async" % number)).result(10)
                    try:
                        consumer.fetch_subscribe_message_queues("Forked")
                    except ClientFault:  # consumers stay the parent's
                        status = 0
                finally:
                    os._exit(status)
            children.append(pid)
            producer.send(Message("Forked", b"parent %d" % number))
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        producer.send(Message("Forked", b"parent after"))
        assert consumer.fetch_subscribe_message_queues("Forked")
        consumer.shutdown()
    expected = [b"parent before", b"parent after", *(b"parent %d" % n for n in range(3))]
    expected += [b"child %d %s" % (n, kind) for n in range(3) for kind in (b"sync", b"async")]
    assert sorted(pull_everything(shared_broker, "Forked")) == sorted(expected)


@pytest.mark.long
@pytest.mark.parametrize(
    "violent", [pytest.param(False, id="stopped", marks=pytest.mark.long), pytest.param(True, id="killed")]
)
def test_clients_find_a_restarted_broker_again(broker: Broker, violent: bool) -> None:
    got: list[bytes] = []

    def consume(messages: list[MessageExt], context: ConsumeConcurrentlyContext) -> ConsumeConcurrentlyStatus:
        got.extend(bytes(message.body) for message in messages)
        return ConsumeConcurrentlyStatus.CONSUME_SUCCESS

    with Producer("Restart", namesrv_addr=broker.namesrv_addr) as producer:
        producer.send(Message("Restart", b"before"))
        consumer = PushConsumer(
            "RestartGroup",
            namesrv_addr=broker.namesrv_addr,
            consume_from_where=ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET,
        )
        consumer.subscribe("Restart")
        consumer.register_message_listener(consume)
        with consumer:
            wait_until(lambda: got == [b"before"], limit_s=20)
            if violent:
                broker.kill()
            else:
                broker.stop()
            with pytest.raises(Exception):  # noqa: B017  # whatever it is, it must come, and in time
                producer.send(Message("Restart", b"nobody there"), timeout_ms=1000)
            broker.start()

            def sends() -> bool:
                try:
                    producer.send(Message("Restart", b"after"), timeout_ms=3000)
                except Exception:
                    return False
                return True

            wait_until(sends, limit_s=20)
            wait_until(lambda: b"after" in got, limit_s=20)
            assert producer.send_async(Message("Restart", b"async after")).result(10).queue_offset >= 0
            wait_until(lambda: b"async after" in got, limit_s=20)


@pytest.mark.long
def test_a_worker_that_dies_costs_no_message(broker: Broker) -> None:
    import psutil

    with Producer("WorkerDeath", namesrv_addr=broker.namesrv_addr) as producer:
        futures = []
        killed = False
        for number in range(4000):
            futures.append(producer.send_async(Message("WorkerDeath", b"%d" % number), timeout_ms=20_000))
            if number == 1500:
                children = psutil.Process(broker.pid).children(recursive=True)
                worker = next(child for child in children if "worker 0" in child.cmdline()[0])
                os.kill(worker.pid, signal.SIGKILL)
                killed = True
        results = [future.result(30) for future in futures]
    assert killed and len(results) == 4000
    stored = pull_everything(broker, "WorkerDeath")
    # A retry may store a message twice; none may be missing.
    assert set(stored) == {b"%d" % number for number in range(4000)}


def test_importing_and_sending_loads_no_numpy(shared_broker: Broker) -> None:
    script = (
        "import sys, shmq\n"
        "assert not {'numpy', 'orjson', 'asyncio'} & sys.modules.keys(), 'import shmq is not lazy'\n"
        "from shmq import Message, Producer\n"
        "with Producer('NoNumpy', namesrv_addr=sys.argv[1]) as p:\n"
        "    p.send(Message('NoNumpy', b'x')); p.send_async(Message('NoNumpy', b'y')).result(10)\n"
        "assert 'numpy' not in sys.modules and 'asyncio' not in sys.modules, 'a small client is not small'\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, shared_broker.namesrv_addr]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_sync_send_outlasts_a_restart_of_the_whole_broker(tmp_path: Path) -> None:
    """Nobody listens for a moment: attempts that reach nobody are made again until the time is over."""
    with (
        Broker(tmp_path / "store", brokerWorkers="1") as broker,
        Producer("Outlasts", namesrv_addr=broker.namesrv_addr, send_msg_timeout_ms=30_000) as producer,
    ):
        producer.create_topic("Outlasts", 1)
        queue = producer.send(Message("Outlasts", b"0")).message_queue
        broker.kill()
        starting = threading.Thread(target=broker.start)
        starting.start()
        assert producer.send(Message("Outlasts", b"1")).queue_offset == 1
        assert producer.send(Message("Outlasts", b"2"), queue=queue).queue_offset == 2
        starting.join(30)
        broker.kill()
        with pytest.raises(ClientError, match="after 3 attempts"):
            producer.send(Message("Outlasts", b"3"), timeout_ms=300)
        broker.start()
