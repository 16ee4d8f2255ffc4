"""The embedded broker: private, restartable, and gone afterwards whatever happened to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shmq import Message, Producer
from shmq.base.errors import Unavailable
from shmq.base.runtime_dir import page_name
from shmq.embedded import SHARED_MEMORY, Broker


def left_in_shared_memory(name: str) -> list[Path]:
    return [
        *SHARED_MEMORY.glob(name.removeprefix("/")),
        *SHARED_MEMORY.glob(f"sem.{name.removeprefix('/')}-*"),
    ]


@pytest.mark.long
@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_nothing_is_left_behind(killed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker:
        with Producer("Embedded", namesrv_addr=broker.namesrv_addr) as producer:
            producer.send(Message("Embedded", b"x"))
        name, root = page_name(broker.store_root), broker.store_root
        assert left_in_shared_memory(name)
        if killed:
            broker.kill()
            assert not broker.running
            # Its number may be another process group's by now.
            monkeypatch.setattr("os.killpg", lambda pid, number: pytest.fail("a stranger is killed"))
            broker.kill()
    assert not root.exists() and not left_in_shared_memory(name)


def test_a_start_that_fails_says_why_and_leaves_nothing() -> None:
    broker = Broker(flushDiskType="NEVER")
    with pytest.raises(Unavailable, match="flushDiskType"):
        broker.start()
    assert not broker.running and broker._folder is None


def send_to_queue_0(broker: Broker) -> int:
    """Send one message and return its queue offset."""
    with Producer("Embedded", namesrv_addr=broker.namesrv_addr) as producer:
        producer.create_topic("Kept", 1)
        queue = producer.fetch_publish_message_queues("Kept")[0]
        return producer.send(Message("Kept", b"x"), queue=queue).queue_offset


@pytest.mark.long
def test_a_given_store_stays_and_goes_on(tmp_path: Path) -> None:
    for expected in range(2):
        with Broker(tmp_path / "store") as broker:
            assert send_to_queue_0(broker) == expected
    assert (tmp_path / "store" / "commitlog").is_dir()


@pytest.mark.long
def test_a_program_that_forgets_to_close_it_leaves_no_process(tmp_path: Path) -> None:
    script = "from shmq.embedded import Broker\nb = Broker().start()\nprint(b.pid, b.store_root)\n"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )
    pid, root = done.stdout.split()
    assert not Path(f"/proc/{pid}").exists() and not Path(root).exists()
