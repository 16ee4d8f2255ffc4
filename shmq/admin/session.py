"""The options that every command has, and the connection they lead to. One session per process."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shmq.client.admin_client import AdminClient


TIMEOUT_S = 5.0
"""How long each request may take; mqadmin's limit."""


@dataclass(slots=True)
class Session:
    """What the common options of this run say; filled while the command line is parsed."""

    namesrv: str | None = None
    as_json: bool = False
    headers: bool = True
    timeout_s: float = TIMEOUT_S
    yes: bool = False
    verbose: bool = False
    grouped: bool = False
    """The command was named in its modern spelling, which asks before it destroys."""

    def admin(self) -> AdminClient:
        """A client for the name server of `-n`, or the one found on this host; use it in a `with` block."""
        from shmq.client.admin_client import AdminClient

        return AdminClient(namesrv_addr=self.namesrv, timeout_s=self.timeout_s)

    def confirm_loss(self, what: str, name: str) -> bool:
        """Whether data may be destroyed: --yes, the typed name on a terminal, or mqadmin's habit in a script.

        A runbook written for mqadmin goes on as it did, with a line on stderr; the modern spelling without a
        terminal needs --yes.
        """
        if self.yes:
            return True
        if sys.stdin.isatty():
            print(f"This destroys {what}. Type {name} to go on: ", end="", file=sys.stderr, flush=True)
            return sys.stdin.readline().strip() == name
        if not self.grouped:
            print(f"destroying {what} (no terminal to ask on)", file=sys.stderr)
        return not self.grouped


current = Session()


def reset() -> Session:
    """Start over with defaults; for one process that runs several command lines (tests)."""
    global current
    current = Session()
    return current
