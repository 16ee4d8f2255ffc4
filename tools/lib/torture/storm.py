"""Who is killed when: a schedule from the seed, and what each kind of event does to the processes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from shmq.embedded import Broker

KINDS = {
    "worker": 8,
    "coordinator": 3,
    "supervisor": 2,
    "all": 2,
    "stopped worker": 3,
    "restart": 1,
    "producer": 2,
    "consumer": 2,
    "topic": 2,
    "retention": 1,
}
"""Kinds of events and how often each comes."""

PAUSE_S = (0.2, 2.0)
STOPPED_S = (0.1, 1.5)
KEPT_SEGMENTS = 4
"""Retention leaves at least so many: consumers are hardly ever so far behind."""


class Event(NamedTuple):
    """One event: how long after the one before it, what, and a number for its choices."""

    pause_s: float
    kind: str
    dice: float


def schedule(seed: int) -> Iterator[Event]:
    """The events of a seed, without end."""
    rng = random.Random(seed)
    kinds = list(KINDS)
    while True:
        kind = rng.choices(kinds, [KINDS[kind] for kind in kinds])[0]
        yield Event(rng.uniform(*PAUSE_S), kind, rng.random())


class Children:
    """Producer or consumer processes, started again when they are killed."""

    def __init__(
        self, module: str, names: list[str], arguments: Callable[[str], list[str]], log: Path
    ) -> None:
        self._module = module
        self._log = log
        self._arguments = arguments
        self.running = {name: self._start(name) for name in names}

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", self._module, *self._arguments(name)]
        with self._log.open("ab") as sink:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)

    def kill_one(self, dice: float) -> None:
        """Kill one, and start it again."""
        name = sorted(self.running)[int(dice * len(self.running))]
        self.running[name].kill()
        self.running[name].wait()
        self.running[name] = self._start(name)

    def start_missing(self) -> None:
        """Start those that have ended by themselves."""
        for name, child in self.running.items():
            if child.poll() is not None:
                self.running[name] = self._start(name)

    def wait(self, limit_s: float) -> list[str]:
        """Wait until all have left; the names of those that had to be killed."""
        deadline = time.monotonic() + limit_s
        late = []
        for name, child in self.running.items():
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                late.append(name)
        return late

    def kill(self) -> None:
        """End all of them: also where a storm broke off."""
        for child in self.running.values():
            child.kill()
            child.wait()


class Storm:
    """Carries out events on one broker."""

    def __init__(self, broker: Broker, producers: Children, consumers: Children) -> None:
        self._broker = broker
        self._producers = producers
        self._consumers = consumers
        self._topics = 0
        self.expired_end = 0
        """Physical offset up to which retention was asked to delete the log."""

    def carry_out(self, event: Event) -> None:
        """Do it."""
        {
            "worker": lambda: self._kill("worker", event.dice),
            "coordinator": lambda: self._kill("coordinator", event.dice),
            "supervisor": self._kill_supervisor,
            "all": self._kill_all,
            "stopped worker": lambda: self._stop_for_a_while(event.dice),
            "restart": self._restart,
            "producer": lambda: self._producers.kill_one(event.dice),
            "consumer": lambda: self._consumers.kill_one(event.dice),
            "topic": self._topic_life,
            "retention": self._retention,
        }[event.kind]()

    def _children(self, role: str) -> list[int]:
        found = []
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._broker.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if f"shmq: {role}" in " ".join(child.cmdline()):
                        found.append(child.pid)
        return sorted(found)

    def _kill(self, role: str, dice: float) -> None:
        pids = self._children(role)
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pids[int(dice * len(pids))], signal.SIGKILL)

    def _kill_supervisor(self) -> None:
        """Its children leave by themselves; it is started again as a service manager would."""
        os.kill(self._broker.pid, signal.SIGKILL)
        self._broker.kill()
        self._broker.start()

    def _kill_all(self) -> None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._broker.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
        self._kill_supervisor()

    def _stop_for_a_while(self, dice: float) -> None:
        pids = self._children("worker")
        if pids:
            pid = pids[int(dice * len(pids))]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(STOPPED_S[0] + dice * (STOPPED_S[1] - STOPPED_S[0]))
                os.kill(pid, signal.SIGCONT)

    def _restart(self) -> None:
        self._broker.stop()
        self._broker.start()

    def _topic_life(self) -> None:
        """Make a topic, send to it, delete it."""
        from shmq import AdminClient, Message, Producer, ShmqError
        from shmq.model.topic_config import TopicConfig

        self._topics += 1
        topic = f"Side{self._topics}"
        with contextlib.suppress(ShmqError), AdminClient(self._broker.namesrv_addr) as admin:
            admin.create_topic(self._broker.tcp_addr, TopicConfig(topic, 2, 2))
            with Producer("Storm-side", namesrv_addr=self._broker.namesrv_addr) as producer:
                producer.send(Message(topic, b"side"))
            admin.delete_topic_in_broker(self._broker.tcp_addr, topic)

    def _retention(self) -> None:
        """Make the older half of the log look too old, and ask for what is expired to be deleted."""
        from shmq import AdminClient, ShmqError

        segments = sorted((self._broker.store_root / "commitlog").iterdir())
        expired = segments[: min(len(segments) // 2, len(segments) - KEPT_SEGMENTS)]
        if not expired:
            return
        for segment in expired:
            with contextlib.suppress(FileNotFoundError):
                os.utime(segment, (1, 1))
        self.expired_end = max(self.expired_end, int(segments[len(expired)].name))
        with contextlib.suppress(ShmqError), AdminClient(self._broker.namesrv_addr) as admin:
            admin.delete_expired_commit_log(self._broker.tcp_addr)
