"""Comparison: runs a workload on its systems in alternating turns; keeps servers and clients for the turns.

Between turns everything dirty is written out, so that one system's write-back is not another's stall. While
one system has its turn the others' servers stay up, asleep; what they use meanwhile is measured and
reported, and so is what the rest of the machine used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import processes
from bench.alternation import turns
from bench.clients import ClientProcess, python_client
from bench.durability import Durability
from bench.load.job import LoadFailed
from bench.loads import LOADS, Seat
from bench.probes import PROBES
from bench.result import Row, Turn
from bench.servers.rocketmq import java_client
from bench.servers.server import Missing, Server
from bench.systems import JAVA, SERVERS, System
from bench.workload import Workload
from shmq.base.errors import ShmqError

WARM_UP_PART = 0.4
"""An untimed turn before the first, as part of a turn's length."""
FAILURES = (Missing, LoadFailed, ShmqError, OSError, subprocess.SubprocessError)
"""What costs a system its place in a row, and not the run."""
SETTLE_FROM_S = 1.0
"""Shorter turns leave too little behind to be written out first."""


class Comparison(AbstractContextManager["Comparison"]):
    """The servers and clients of one durability class."""

    def __init__(
        self, durability: Durability, systems: dict[str, System], *, rounds: int, seconds: float
    ) -> None:
        """Nothing is started before a workload needs it."""
        self.durability = durability
        self.rounds = rounds
        self.seconds = seconds
        self.settings: dict[str, dict[str, str]] = {}
        """Of every server that was up: its settings."""
        self._systems = systems
        self._folder = Path(tempfile.mkdtemp(prefix="shmq-bench-"))
        self._servers: dict[str, Server] = {}
        self._clients: dict[tuple[str, int], ClientProcess] = {}
        self._topics = 0
        self._made = 0

    def run(self, workload: Workload) -> Row:
        """All rounds of one workload."""
        row = Row(workload, self.durability, seconds=self.seconds)
        began = time.monotonic()
        present = [system for name in workload.systems if (system := self._present(row, name))]
        try:
            if workload.kind in PROBES:
                self._rounds(
                    row, present, lambda system: PROBES[workload.kind](self, system, workload, self.seconds)
                )
            else:
                self._run_load(row, present)
        finally:
            self._end_row()
        row.took_s = time.monotonic() - began
        row.verdicts = [(goal.text, goal.verdict(row)) for goal in workload.goals]
        return row

    def _run_load(self, row: Row, present: list[System]) -> None:
        """A kind of load: every system gets its seat and warms up before the first round."""
        workload = row.workload
        seats: dict[str, Seat] = {}
        for system in present:
            try:
                server = self._server(system) if system.server else None
                seats[system.name] = self.seat(system, server, workload)
                LOADS[workload.kind](seats[system.name], workload, self.seconds * WARM_UP_PART)
            except FAILURES as failure:
                self._give_up(row, system, f"{failure}")
        self._rounds(row, present, lambda system: [self._turn(seats[system.name], workload)])

    def _rounds(self, row: Row, present: list[System], take_turn: Callable[[System], list[Turn]]) -> None:
        """Alternate; a system that fails drops out and is named."""
        running = [system for system in present if system.name not in row.missing]
        for number, system in turns(running, 1 if row.workload.once else self.rounds):
            if system.name in row.missing:
                continue
            try:
                found = take_turn(system)
            except FAILURES as failure:
                self._give_up(row, system, f"round {number + 1}: {failure}")
            else:
                for turn in found:
                    turn.round = number
                row.turns += found

    def _give_up(self, row: Row, system: System, reason: str) -> None:
        """Name a system that failed. Its clients go: one may still be at the job that failed."""
        row.missing[system.name] = reason
        for key in [key for key in self._clients if key[0] == system.name]:
            self._clients.pop(key).close()

    def _present(self, row: Row, name: str) -> System | None:
        """The system of that name, or None and the reason in the row."""
        system = self._systems.get(name)
        if system is None:
            return None
        if self.durability not in system.classes:
            row.missing[name] = f"has no class {self.durability.value}"
        elif system.kinds is not None and row.workload.kind not in system.kinds:
            return None
        elif reason := system.lacking():
            row.missing[name] = reason
        else:
            return system
        return None

    def seat(self, system: System, server: Server | None, workload: Workload) -> Seat:
        """A place at a topic of the server which nobody has used."""
        self._topics += 1
        options = {**system.options, **workload.options}
        if server is None and self.durability is Durability.SYNCED:
            options["synced"] = True
        topic = f"Bench{self._topics}{workload.kind.replace('-', '').title()}"
        address = server.address if server else {}
        return Seat(system.name, topic, address, options, lambda number: self.client(system, number), server)

    @contextmanager
    def fresh(self, system: System) -> Iterator[Server]:
        """A server of the system that is not started yet; stopped and removed at the end."""
        server = self._make_server(system)
        try:
            yield server
        finally:
            server.stop()
            self.settings[_server_key(system)] = server.settings
            shutil.rmtree(server.folder, ignore_errors=True)

    def _make_server(self, system: System) -> Server:
        assert system.server is not None
        self._made += 1
        folder = self._folder / f"{system.server}-{self._made}"
        server = SERVERS[system.server](folder, self.durability, system.source)
        server.traced = system.traced
        return server

    def _server(self, system: System) -> Server:
        """The system's running server; systems with the same one share it."""
        key = _server_key(system)
        if key not in self._servers:
            server = self._make_server(system)
            try:
                server.start()
            except BaseException:
                server.stop()
                raise
            self._servers[key] = server
            self.settings[key] = server.settings
        return self._servers[key]

    def client(self, system: System, number: int) -> ClientProcess:
        """A client process of the system, up; it stays for later rows."""
        key = (system.name, number)
        if key not in self._clients:
            output = self._folder / f"client-{system.name.replace('/', '-')}-{number}.out"
            if system.driver == JAVA:
                self._clients[key] = java_client(self._folder, output)
            else:
                traced = self.client_stages(system) if system.traced else None
                self._clients[key] = python_client(system.driver, output, system.source, traced)
        return self._clients[key]

    def client_pids(self, system: System) -> list[int]:
        """The processes of its clients that are up."""
        return [client.pid for (name, _), client in self._clients.items() if name == system.name]

    def client_stages(self, system: System) -> Path:
        """Where its traced clients note their stages."""
        return self._folder / f"stages-{system.name.replace('/', '-')}"

    def _turn(self, seat: Seat, workload: Workload) -> Turn:
        if self.seconds >= SETTLE_FROM_S:
            os.sync()
        mine, others = self._pids(seat.system)
        marks: list[tuple[float, ...]] = []

        def mark() -> None:
            # The clock beside the machine's counter: looking through all processes takes its time, too.
            machine, clock = processes.machine_seconds(), time.monotonic()
            marks.append((machine, clock, processes.cpu_seconds(mine), processes.cpu_seconds(others)))

        outcome = LOADS[workload.kind](seat, workload, self.seconds, mark)
        mark()
        machine, length, own, idle = (after - before for before, after in zip(*marks[:2], strict=True))
        figures = {
            "rate": outcome.messages / outcome.seconds if outcome.seconds else 0.0,
            "bytes_s": outcome.body_bytes / outcome.seconds if outcome.seconds else 0.0,
            "cpu_us": own / outcome.messages * 1e6 if outcome.messages else 0.0,
            "others_cpu": idle / length,
            "foreign_cpu": max(0.0, machine - own - idle) / length,
        }
        if outcome.latency.total:
            figures |= {name: value / 1000 for name, value in outcome.latency.percentiles().items()}
        return Turn(seat.system, 0, figures, outcome.latency)

    def _pids(self, system: str) -> tuple[list[int], list[int]]:
        """Processes of one system, and of all others."""
        key = _server_key(self._systems[system])
        mine: list[int] = []
        others: list[int] = []
        for server_key, server in self._servers.items():
            (mine if server_key == key else others).extend(server.pids)
        for (name, _), client in self._clients.items():
            (mine if name == system else others).append(client.pid)
        return mine, others

    def start_afresh(self) -> None:
        """Let go of all clients and servers: nobody knows what they are at."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        for server in self._servers.values():
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)
        self._servers.clear()

    def _end_row(self) -> None:
        """Stop what need not stay warm: the next row gets fresh servers with empty stores."""
        for key in [key for key, server in self._servers.items() if not server.keeps_warm]:
            server = self._servers.pop(key)
            server.stop()
            shutil.rmtree(server.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Nothing to do yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything and remove its files."""
        self.start_afresh()
        shutil.rmtree(self._folder, ignore_errors=True)


def _server_key(system: System) -> str:
    return f"{system.server}@{system.source}" if system.source else str(system.server)
