"""beanstalkd with its log in files, on a Unix socket."""

from __future__ import annotations

from bench import peers
from bench.durability import Durability
from bench.servers.server import Missing, Server, answers_unix

SYNCING = {Durability.PAGE_CACHE: "-F", Durability.TIMED: "-f1000", Durability.SYNCED: "-f0"}
"""-F never syncs, -fMS at most once in so many milliseconds, -f0 after every write."""
JOB_BYTES_MAX = 1 << 20


class BeanstalkdServer(Server):
    """`beanstalkd`, its log in the folder."""

    def start(self) -> None:
        """Start it."""
        program = peers.program("beanstalkd")
        if program is None:
            raise Missing(f"no beanstalkd: {peers.HOW}")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "beanstalkd.sock"
        flag = SYNCING[self.durability]
        self.settings = {"syncing": flag}
        where = ["-l", f"unix:{path}", "-b", str(self.folder), "-z", str(JOB_BYTES_MAX)]
        self.spawn([program, *where, flag])
        self.await_ready(lambda: answers_unix(path), "beanstalkd")
        self.address = {"socket": str(path)}
