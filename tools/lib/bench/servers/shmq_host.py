"""Hosts a shmq broker for the bench: `python -m bench.servers.shmq_host store=... KEY=VALUE...`

A process of its own, so that the broker can be another source tree's. It prints where the broker is after
each start, and obeys lines: `kill` (every process at once), `forget` (what a power cut takes: the shared
page, and what the page cache holds of the store), `start`, `cool` (stop, drop what is cached,
start). Stops the broker and removes its folder when its input ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from shmq.base.runtime_dir import page_name
from shmq.embedded import Broker


def main() -> None:
    """Start, obey, stop."""
    settings = dict(word.split("=", 1) for word in sys.argv[1:])
    store = settings.pop("store")
    with Broker(store, **settings) as broker:
        _tell(broker)
        for line in sys.stdin:
            COMMANDS[line.strip()](broker)
            _tell(broker)


def _tell(broker: Broker) -> None:
    facts = (broker.namesrv_addr, broker.namesrv_tcp_addr, broker.unix_socket, broker.pid)
    print(*facts, flush=True)


def _kill(broker: Broker) -> None:
    broker.kill()


def _start(broker: Broker) -> None:
    # `stop` only clears away the killed process; the store and its page stay.
    if not broker.running:
        broker.stop()
    broker.start()


def _forget(broker: Broker) -> None:
    name = page_name(broker.store_root).removeprefix("/")
    for left in Path("/dev/shm").glob(f"*{name}*"):
        left.unlink()
    _drop_cached(broker)


def _cool(broker: Broker) -> None:
    broker.stop()
    _drop_cached(broker)
    broker.start()


def _drop_cached(broker: Broker) -> None:
    """Nobody maps the files: what is clean of them leaves the page cache."""
    os.sync()
    for path in broker.store_root.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


COMMANDS = {"kill": _kill, "forget": _forget, "start": _start, "cool": _cool}

if __name__ == "__main__":
    main()
