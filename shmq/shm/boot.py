"""What the supervisor hands to a child it starts: who it is, and which descriptors it inherits.

Made by the supervisor (`supervisor/children.py`), pickled for the child, read by `worker.main.run(boot)` and
`coordinator.main.run(boot)`. Every `*_fd` is a descriptor number of the process that holds the object; the
child's first code renumbers it (`renumbered`). -1 stands for "there is none". It stands in this layer so
that worker and coordinator need not import the supervisor.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from shmq.model.settings import BrokerSettings


class ChildRole(enum.StrEnum):
    """The process kinds the supervisor starts and restarts."""

    WORKER = "worker"
    COORDINATOR = "coordinator"


class ChildExit(enum.IntEnum):
    """Exit codes of a child; what the supervisor does next depends on them.

    DONE         it was asked to leave, and did
    CRASHED      an unexpected error: it is started again, with back-off
    CANNOT_BOOT  it can never start like this (wrong page layout, bad settings): the broker stops and says why
    ORPHANED     the supervisor's pipe was closed: nobody is there to look at this code
    """

    DONE = 0
    CRASHED = 1
    CANNOT_BOOT = 78
    ORPHANED = 79


READY = b"R"
"""What a child writes into its status pipe once it serves."""

SUPERVISOR_SLOT = 0
COORDINATOR_SLOT = 1
FIRST_WORKER_SLOT = 2


@dataclass(frozen=True, slots=True)
class ChildBoot:
    """Everything a child needs to start; plain data.

    slot            the appender slot of this child (`shm/worker_slots.py`): 1 coordinator, 2.. workers
    index           number of the worker, 0-based (0 for the coordinator)
    settings        the frozen settings, ports already resolved (never 0)
    store_root      folder of the store
    page_name       name of the control page in /dev/shm
    semaphore_name  name of the AppendLock's semaphore
    bell_fds        one eventfd per slot, by slot
    supervisor_fd   read end of the supervisor pipe: EOF means the supervisor is gone, leave
    status_fd       write end of this child's status pipe, see `report_ready`
    runtime_dir     folder of the sockets
    log_dir         folder of the log files; None: stderr
    listener_fds    listening sockets a worker accepts from: Unix front, TCP front, and the front at
                    listenPort - 2
    grant_fd        listening Unix socket for reader grants (coordinator)
    internal_fd     listening Unix socket workers call (coordinator)
    handoff_fds     worker: sending ends by worker index; a connection (SCM_RIGHTS) written to [i] reaches
                    worker i
    handoff_in_fd   worker: the receiving end of its own pair (SOCK_SEQPACKET, shared by all senders)
    """

    role: ChildRole
    slot: int
    index: int
    settings: BrokerSettings
    store_root: Path
    page_name: str
    semaphore_name: str
    bell_fds: tuple[int, ...]
    supervisor_fd: int
    status_fd: int
    runtime_dir: Path
    log_dir: Path | None = None
    listener_fds: tuple[int, ...] = ()
    grant_fd: int = -1
    internal_fd: int = -1
    handoff_fds: tuple[int, ...] = ()
    handoff_in_fd: int = -1

    def descriptors(self) -> tuple[int, ...]:
        """Every descriptor the child must inherit, without gaps."""
        named = (self.supervisor_fd, self.status_fd, self.grant_fd, self.internal_fd, self.handoff_in_fd)
        everything = (*self.bell_fds, *self.listener_fds, *self.handoff_fds, *named)
        return tuple(dict.fromkeys(fd for fd in everything if fd >= 0))

    def renumbered(self, here: Mapping[int, int]) -> ChildBoot:
        """The same boot with the numbers under which its descriptors arrived in the child."""

        def moved(fds: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(here.get(fd, -1) for fd in fds)

        return replace(
            self,
            bell_fds=moved(self.bell_fds),
            listener_fds=moved(self.listener_fds),
            handoff_fds=moved(self.handoff_fds),
            handoff_in_fd=here.get(self.handoff_in_fd, -1),
            supervisor_fd=here.get(self.supervisor_fd, -1),
            status_fd=here.get(self.status_fd, -1),
            grant_fd=here.get(self.grant_fd, -1),
            internal_fd=here.get(self.internal_fd, -1),
        )

    def report_ready(self) -> None:
        """Tell the supervisor that this child serves now: the broker is announced when all children did."""
        if self.status_fd >= 0:
            os.write(self.status_fd, READY)

    @property
    def title(self) -> str:
        """The process title, as `ps` and the journal show it."""
        name = self.settings.broker_name
        return (
            f"shmq: worker {self.index} {name}"
            if self.role is ChildRole.WORKER
            else f"shmq: coordinator {name}"
        )
