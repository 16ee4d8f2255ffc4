"""`shmq-shutdown broker|namesrv [NAME|PORT]`: ask a server of this host to stop, and wait until it has.

Finds the process by its title, as `ps` shows it, and sends SIGTERM through a pidfd, so that no other process
can be hit. Exit status: 0 it has stopped, 1 there is none or it did not stop in time, 2 wrong command line.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

LIMIT_S = 15.0

_TITLES = {"broker": "shmq: supervisor ", "namesrv": "shmq: namesrv "}


class Running(NamedTuple):
    """A server process of this host: its pid, and the broker's name or the name server's port."""

    pid: int
    name: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `shmq-shutdown`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="shmq-shutdown", description="Stop a broker or a name server of this host."
    )
    parser.add_argument("kind", choices=sorted(_TITLES))
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="broker name, or the name server's port; not needed when there is only one",
    )
    given = parser.parse_args(arguments)
    found = [one for one in running_servers(given.kind) if given.name in (None, one.name)]
    if not found:
        wanted = f"{given.kind} {given.name}" if given.name else given.kind
        print(f"shmq-shutdown: no {wanted} is running{_hint(given.kind)}", file=sys.stderr)
        return 1
    if len(found) > 1:
        names = ", ".join(f"{one.name} ({one.pid})" for one in found)
        print(f"shmq-shutdown: several are running, name one: {names}", file=sys.stderr)
        return 1
    return _stop(given.kind, found[0])


def running_servers(kind: str) -> Iterator[Running]:
    """The brokers (their supervisors) or name servers that run on this host."""
    title = _TITLES[kind]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace")
        except OSError:
            continue
        if command.startswith(title):
            yield Running(int(folder.name), command[len(title) :].strip())


def _hint(kind: str) -> str:
    if kind == "namesrv" and (brokers := [one.name for one in running_servers("broker")]):
        return f"; a broker may bring its own, which stops with it (running: {', '.join(brokers)})"
    return ""


def _stop(kind: str, running: Running) -> int:
    label = f"{kind} {running.name}".strip()
    try:
        pid_fd = os.pidfd_open(running.pid)
    except ProcessLookupError:
        print(f"{label} ({running.pid}) has stopped")
        return 0
    try:
        signal.pidfd_send_signal(pid_fd, signal.SIGTERM)
        print(f"asked {label} ({running.pid}) to stop", flush=True)
        gone = select.poll()
        gone.register(pid_fd, select.POLLIN)
        if gone.poll(LIMIT_S * 1000):
            print(f"{label} ({running.pid}) has stopped")
            return 0
    except PermissionError:
        print(f"shmq-shutdown: {label} ({running.pid}) belongs to another user", file=sys.stderr)
        return 1
    finally:
        os.close(pid_fd)
    print(f"shmq-shutdown: {label} ({running.pid}) has not stopped after {LIMIT_S:.0f} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
