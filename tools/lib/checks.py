"""What ./tools/test does: lint, types, layers, tests, and a look at what the tests left behind.

Every step runs even when an earlier one failed; the last lines say which did. The tests get a temporary
folder and a marked environment of their own, so that a process, an IPC object or a store that outlives them
is seen and makes the run fail, while other brokers of the same machine are left out of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

BIN = Path(sys.executable).parent
RUN_MARK = "SHMQ_TEST_RUN"
"""Environment variable that every process started by this run inherits."""

PYTEST_FOLDER = "pytest"


def main() -> int:
    """Run the steps and return the exit code."""
    options = _arguments()
    steps: list[tuple[str, Callable[[], bool]]] = []
    if not options.tests_only:
        steps += [
            ("ruff check", lambda: _run("ruff", "check", ".")),
            ("ruff format", lambda: _run("ruff", "format", "--check", "--quiet", ".")),
            ("mypy --strict", lambda: _run("mypy", "--strict", "shmq")),
            ("layers", lambda: _run("lint-imports")),
        ]
    if not options.checks_only:
        steps.append(("tests", lambda: _tests(options)))
    results = [(name, *_timed(name, step)) for name, step in steps]
    print("\n" + "-" * 60)
    for name, passed, seconds in results:
        print(f"{'ok  ' if passed else 'FAIL'}  {name:<20} {seconds:6.1f} s")
    return 0 if all(passed for _, passed, _ in results) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/test", description="Lint, types, layers and all tests of the default run."
    )
    parser.add_argument("--long", action="store_true", help="also run the tests marked long")
    parser.add_argument(
        "--serial", action="store_true", help="one test after the other (default: 2 processes)"
    )
    parser.add_argument("-n", "--processes", type=int, default=2, help="test processes (default 2)")
    parser.add_argument("--checks-only", action="store_true", help="lint, types and layers, no tests")
    parser.add_argument("--tests-only", action="store_true", help="tests, no lint, types or layers")
    parser.add_argument(
        "pytest_args", nargs="*", metavar="PYTEST_ARG", help="paths, or after --: any of pytest's"
    )
    return parser.parse_args()


def _timed(name: str, step: Callable[[], bool]) -> tuple[bool, float]:
    print(f"\n=== {name}", flush=True)
    started = time.monotonic()
    passed = step()
    return passed, time.monotonic() - started


def _run(tool: str, *args: str, env: dict[str, str] | None = None) -> bool:
    return subprocess.run([BIN / tool, *args], env=env, check=False).returncode == 0


def _tests(options: argparse.Namespace) -> bool:
    """Run pytest in a folder of its own, then report everything that is still there."""
    mark = uuid.uuid4().hex
    # A short path: Unix socket paths under it must stay below 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    before = _ipc_objects()
    env = {**os.environ, RUN_MARK: mark, "TMPDIR": str(folder)}
    args = [f"--basetemp={folder / PYTEST_FOLDER}"]
    if options.long:
        args.append("--long")
    if not options.serial:
        args += ["-n", str(options.processes), "--dist", "loadgroup"]
    passed = _run("pytest", *args, *options.pytest_args, env=env)
    leftovers = _leftovers(mark, folder, before)
    for line in leftovers:
        print(f"LEFT BEHIND: {line}")
    if passed and not leftovers:
        shutil.rmtree(folder)
    else:
        print(f"kept for a look: {folder}")
    return passed and not leftovers


def _leftovers(mark: str, folder: Path, ipc_before: set[str]) -> list[str]:
    """Processes with this run's mark, IPC objects that nobody maps, files outside pytest's own folder."""
    deadline = time.monotonic() + 5
    while (processes := _marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)  # a process may be on its way out
    found = [f"process {pid}: {command}" for pid, command in processes]
    fresh = _ipc_objects() - ipc_before
    mapped = _mapped_ipc_objects()
    found += [f"/dev/shm/{name}" for name in sorted(fresh - mapped)]
    found += [f"{path}" for path in sorted(folder.iterdir()) if path.name not in (PYTEST_FOLDER,)]
    return found


def _marked_processes(mark: str) -> list[tuple[int, str]]:
    needle = f"{RUN_MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if needle in (entry / "environ").read_bytes():
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found.append((int(entry.name), command.strip()))
            except OSError:
                continue  # gone, or another user's
    return found


def _ipc_objects() -> set[str]:
    """shmq's shared memory and semaphores in /dev/shm (glibc puts sem. before a semaphore's name)."""
    folder = Path("/dev/shm")
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else iter(())
    return {name for name in names if name.startswith(("shmq", "sem.shmq"))}


def _mapped_ipc_objects() -> set[str]:
    mapped = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text(errors="replace").splitlines()
        except OSError:
            continue
        mapped |= {line.rpartition("/dev/shm/")[2] for line in lines if "/dev/shm/" in line}
    return mapped


if __name__ == "__main__":
    sys.exit(main())
