"""What ./tools/test does: lint, types, layers, tests, and a look at what the tests left behind.

Every step runs even when an earlier one failed; the last lines say which did. The tests get a temporary
folder of their own, and this process adopts what their processes leave behind, so that a process, an IPC
object or a store that outlives them makes the run fail, while other brokers of the machine stay out of it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
PR_SET_CHILD_SUBREAPER = 36
PYTEST_FOLDER = "pytest"
ALONE_MAX = 8
"""Failures of a parallel run that are tried again one after the other; more mean that something is broken."""


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


def _run_reaping(tool: str, *args: str, env: dict[str, str]) -> bool:
    """Run a tool, and take the status of every adopted process that ends meanwhile.

    A test that waits for the children of a killed broker to go must not see them stay as zombies.
    """
    main = subprocess.Popen([BIN / tool, *args], env=env)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == main.pid:
            main.returncode = os.waitstatus_to_exitcode(status)
            return main.returncode == 0


def _tests(options: argparse.Namespace) -> bool:
    """Run pytest in a folder of its own, then report everything that is still there."""
    _adopt_orphans()
    # A short path: Unix socket paths under it must stay below 108 bytes.
    folder = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    folder.chmod(0o755)  # tests that become another user must be able to pass through
    before, folders_before = _ipc_objects(), _broker_folders()
    env = {**os.environ, "TMPDIR": str(folder)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # else each of hundreds of processes compiles what it imports
    env.setdefault("COLUMNS", "250")  # else pytest's summary names what failed, and cuts off the reason
    args = [f"--basetemp={folder / PYTEST_FOLDER}"]
    if options.long:
        args.append("--long")
    together = [] if options.serial else ["-n", str(options.processes), "--dist", "loadgroup"]
    passed = _run_reaping("pytest", "--cache-clear", *args, *together, *options.pytest_args, env=env)
    if not passed and together:
        passed = _again_alone(args, options.pytest_args, env)
    leftovers = _leftovers(folder, before, folders_before)
    for line in leftovers:
        print(f"LEFT BEHIND: {line}")
    if passed and not leftovers:
        shutil.rmtree(folder)
    else:
        print(f"kept for a look: {folder}")
    return passed and not leftovers


def _again_alone(args: list[str], pytest_args: list[str], env: dict[str, str]) -> bool:
    """Run what failed among others once more, one test after the other, and say which that was.

    Two busy cores break the time limits of tests that wait for processes; a defect fails by itself, too. More
    than a few failures are no such thing and are not tried again.
    """
    failed = _last_failed()
    if not 0 < len(failed) <= ALONE_MAX:
        return False
    print(f"\n=== {len(failed)} tests failed among others; once more, alone", flush=True)
    passed = _run_reaping("pytest", *args, "--lf", "--lfnf=none", *pytest_args, env=env)
    for name in failed:
        print(f"FAILED AMONG OTHERS{', passed alone' if passed else ''}: {name}")
    return passed


def _last_failed() -> list[str]:
    """Names of the tests that failed in the last run, as pytest's cache has them."""
    try:
        return sorted(json.loads(Path(".pytest_cache/v/cache/lastfailed").read_text()))
    except FileNotFoundError:
        return []


def _leftovers(folder: Path, ipc_before: set[str], folders_before: set[Path]) -> list[str]:
    """Processes of this run (ended here), IPC objects that nobody maps, files outside pytest's own folder."""
    deadline = time.monotonic() + 5
    while (processes := _orphans()) and time.monotonic() < deadline:
        time.sleep(0.1)  # a process may be on its way out
    found = [f"process {process.pid}: {_command(process)}" for process in processes]
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    unused = _unused_ipc_objects() - ipc_before
    if unused:
        time.sleep(2)  # another broker of this machine may be between making an object and mapping it
        unused &= _unused_ipc_objects()
    found += [f"/dev/shm/{name}" for name in sorted(unused)]
    found += [str(path) for path in sorted(folder.iterdir()) if path.name != PYTEST_FOLDER]
    found += [str(path) for path in sorted(_broker_folders() - folders_before) if not _is_used(path)]
    return found


def _broker_folders() -> set[Path]:
    """Folders of embedded brokers: in /tmp whatever TMPDIR says, because socket paths must be short."""
    return {path for path in Path("/tmp").glob("shmq-*") if re.fullmatch(r"shmq-[a-z0-9_]{8}", path.name)}


def _is_used(folder: Path) -> bool:
    """Whether a living process has a file of the folder open, as a broker its store lock: another run's."""
    prefix = f"{folder}/"
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link).startswith(prefix):
                return True
        except OSError:
            continue
    return False


def _adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends: then none can get out of sight."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _orphans() -> list[psutil.Process]:
    """Descendants that still run; those that ended are reaped."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return psutil.Process().children(recursive=True)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "(gone meanwhile)"


def _ipc_objects() -> set[str]:
    """shmq's shared memory and semaphores in /dev/shm (glibc puts sem. before a semaphore's name)."""
    folder = Path("/dev/shm")
    names = (entry.name for entry in folder.iterdir()) if folder.is_dir() else iter(())
    return {name for name in names if name.startswith(("shmq", "sem.shmq"))}


def _unused_ipc_objects() -> set[str]:
    """Those that nobody maps: whoever made them is gone."""
    return _ipc_objects() - _mapped_ipc_objects()


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
