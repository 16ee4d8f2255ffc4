"""Stage: what a comparison lends to a probe: fresh servers, warm clients."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from bench.clients import ClientProcess
from bench.loads import Seat, fill
from bench.servers.server import Server
from bench.systems import System
from bench.workload import Workload


class Stage(Protocol):
    """One durability class's servers and clients."""

    def fresh(self, system: System) -> AbstractContextManager[Server]:
        """A server of the system that is not started yet; stopped and removed at the end."""

    def client(self, system: System, number: int) -> ClientProcess:
        """A client process, up."""

    def client_pids(self, system: System) -> list[int]:
        """The processes of its clients that are up."""

    def client_stages(self, system: System) -> Path:
        """Where its traced clients note their stages."""

    def seat(self, system: System, server: Server, workload: Workload) -> Seat:
        """A place at a topic of that server which nobody has used."""


def first_send(seat: Seat, workload: Workload) -> None:
    """One acknowledged message."""
    fill(seat, workload, 1)
