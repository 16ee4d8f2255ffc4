"""Where tools/bench-peers put the peers, and which of them this machine has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

FOLDER = Path(os.environ.get("SHMQ_BENCH_PEERS") or Path.home() / ".cache" / "shmq-bench")
PYTHON = FOLDER / "python"
LIBRARIES = FOLDER / "lib"
HOW = "run tools/bench-peers"


def program(name: str) -> str | None:
    """The path of a server's program: the one on the PATH before the fetched one."""
    fetched = FOLDER / "bin" / name
    return shutil.which(name) or (str(fetched) if os.access(fetched, os.X_OK) else None)


def python_module(name: str) -> bool:
    """Whether a client library was fetched."""
    return (PYTHON / name).exists() or (PYTHON / f"{name}.py").exists()


def rocketmq_jars() -> Path | None:
    """The newest fetched set of Apache RocketMQ's jars."""
    folders = sorted(FOLDER.glob("rocketmq-[0-9]*"))
    return folders[-1] if folders else None


def environment() -> dict[str, str]:
    """The environment in which fetched programs find the shared libraries that came with them."""
    paths = os.pathsep.join(filter(None, [str(LIBRARIES), os.environ.get("LD_LIBRARY_PATH")]))
    return {**os.environ, "LD_LIBRARY_PATH": paths}
