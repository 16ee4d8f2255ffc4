"""A disk that is really full, on a small mount: an error that says so, nobody dies, it goes on with room.

Needs the right to mount (root, or a user namespace of a container that allows it); skipped elsewhere.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shmq import Message, MessageQueue, Producer, PullConsumer
from shmq.base.errors import BrokerError, Unavailable
from shmq.base.runtime_dir import page_name
from shmq.embedded import Broker
from shmq.protocol.codes import ResponseCode
from shmq.shm.control_page import ControlPage
from shmq.store.check import check_store
from tests.helpers.waiting import wait_until

MIB = 1 << 20
BODY = bytes(50_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 72 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=72m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    yield folder
    # A failed test's clients may still have maps of it.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_sends_go_on_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(20 * MIB))
    with Broker(small_disk / "store", diskMaxUsedSpaceRatio=95) as broker:
        before = {child.pid for child in psutil.Process(broker.pid).children(recursive=True)}
        settings = {"compress_msg_body_over_howmuch": MIB, "retry_times_when_send_failed": 0}
        with Producer("Full", namesrv_addr=broker.namesrv_addr, **settings) as producer:
            queue = producer.send(Message("Full", BODY)).message_queue
            stored = 1 + _send_until_refused(producer, queue)
            with PullConsumer("Full", namesrv_addr=broker.namesrv_addr) as consumer:
                assert consumer.max_offset(queue) == stored
                assert consumer.pull(queue, "*", stored - 1, 32).messages
            ballast.unlink()

            def goes_on() -> bool:
                try:
                    return producer.send(Message("Full", BODY), queue=queue).queue_offset == stored
                except BrokerError:
                    return False

            wait_until(goes_on, 10, "sends go on")
        assert {child.pid for child in psutil.Process(broker.pid).children(recursive=True)} == before
        page = ControlPage.attach(page_name(broker.store_root), readonly=True)
        try:
            assert list(check_store(broker.store_root, page)) == []
        finally:
            page.close()


def _send_until_refused(producer: Producer, queue: MessageQueue) -> int:
    """How many messages were stored before the disk was full."""
    for count in range(2_000):
        try:
            producer.send(Message("Full", BODY), queue=queue)
        except BrokerError as error:
            assert error.code == ResponseCode.SERVICE_NOT_AVAILABLE
            assert "No space left on device" in str(error)
            return count
    raise AssertionError("100 MB fit into 72 MiB")


@pytest.mark.long
@pytest.mark.parametrize(("ends", "room"), [("stop", 64 << 10), ("kill", 64 << 10), ("kill", 0)])
def test_a_start_on_a_full_disk_serves_readers_or_says_why_not(
    small_disk: Path, ends: str, room: int
) -> None:
    with Broker(small_disk / "store", mappedFileSizeCommitLog=2 * MIB) as broker:
        settings = {"compress_msg_body_over_howmuch": MIB, "retry_times_when_send_failed": 0}
        with Producer("Full", namesrv_addr=broker.namesrv_addr, **settings) as producer:
            queue = producer.send(Message("Full", BODY)).message_queue
            for _ in range(49):
                producer.send(Message("Full", BODY), queue=queue)
        with PullConsumer("Full", namesrv_addr=broker.namesrv_addr) as consumer:
            assert consumer.pull(queue, "*", 0, 1).messages  # later there is no room for a group
        broker.stop() if ends == "stop" else broker.kill()
        ballast = small_disk / "ballast"
        subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=4k"], capture_output=True, check=False)
        os.truncate(ballast, ballast.stat().st_size - room)
        if not room:
            with pytest.raises(Unavailable, match="No space left on device"):
                broker.start()
            ballast.unlink()
        broker.start()
        with (
            PullConsumer("Full", namesrv_addr=broker.namesrv_addr) as consumer,
            Producer("Full", namesrv_addr=broker.namesrv_addr, **settings) as producer,
        ):
            assert (consumer.min_offset(queue), consumer.max_offset(queue)) == (0, 50)
            assert consumer.pull(queue, "*", 0, 32).messages
            if room:
                with pytest.raises(BrokerError, match="full"):
                    producer.send(Message("Full", BODY), queue=queue)
                ballast.unlink()

            def is_stored() -> bool:
                try:
                    return producer.send(Message("Full", BODY), queue=queue).queue_offset == 50
                except BrokerError:
                    return False

            wait_until(is_stored, 15, "sends go on")
