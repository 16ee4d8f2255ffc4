"""The producer and consumer processes, and their lines of news."""

from __future__ import annotations

import json
import selectors
import subprocess
import sys
from collections.abc import Iterator
from typing import Any


class Child:
    """One process of the run; its standard output is lines of JSON."""

    def __init__(self, module: str, *args: str) -> None:
        """Start `python -m module args`."""
        self.name = module
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout
        self._partial = b""

    def read(self) -> list[dict[str, Any]] | None:
        """The news that are there, None at the end of the output."""
        assert self.process.stdout
        data = self.process.stdout.read1(1 << 20)  # type: ignore[attr-defined]
        if not data:
            return None
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def ask_to_stop(self) -> None:
        """Close its input: consumers leave then."""
        assert self.process.stdin
        self.process.stdin.close()

    def kill(self) -> None:
        """End it now, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def news(children: list[Child]) -> Iterator[tuple[Child, dict[str, Any]]]:
    """Everything the children tell, until all have ended; {} for every half second of silence."""
    with selectors.DefaultSelector() as selector:
        for child in children:
            assert child.process.stdout
            selector.register(child.process.stdout, selectors.EVENT_READ, child)
        while selector.get_map():
            ready = selector.select(0.5)
            if not ready:
                yield children[0], {}
            for key, _ in ready:
                lines = key.data.read()
                if lines is None:
                    selector.unregister(key.fileobj)
                    key.data.process.wait()
                    if key.data.process.returncode:
                        raise SystemExit(f"{key.data.name} ended with {key.data.process.returncode}")
                for line in lines or ():
                    yield key.data, line
