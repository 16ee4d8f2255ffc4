from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shmq.base import faults
from shmq.base.errors import Bug, ConfigFault

PROGRAM = """
from shmq.base import faults
faults.declare({"a.first": "before", "a.second": "after"})
try:
    for turn in range(3):
        faults.reach("a.first")
        faults.reach("a.second")
        print(turn, flush=True)
except faults.FaultReached as reached:
    print("raised", reached)
"""


def run(armed: str, once_dir: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SHMQ_FAULTS": armed, "PYTHONPATH": os.getcwd()}
    if once_dir is not None:
        environment["SHMQ_FAULTS_DIR"] = str(once_dir)
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=30
    )


def test_an_unarmed_point_does_nothing() -> None:
    faults.reach("nobody declared this, and nobody looks while nothing is armed")


def test_kill_ends_the_process_at_the_nth_passing() -> None:
    done = run("a.second=kill@2")
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "0\n"


def test_exit_and_raise_end_it_in_their_own_ways() -> None:
    assert run("a.first=exit").returncode == faults.EXIT_STATUS
    assert run("a.first=raise").stdout == "raised a.first\n"


def test_with_a_folder_a_point_fires_once_over_all_processes(tmp_path: Path) -> None:
    assert run("a.second=kill", tmp_path).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["a.second"]
    assert run("a.second=kill", tmp_path).stdout == "0\n1\n2\n"


def test_stop_suspends_until_continued(tmp_path: Path) -> None:
    environment = {**os.environ, "SHMQ_FAULTS": "a.second=stop", "PYTHONPATH": os.getcwd()}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE) as child:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        child.send_signal(signal.SIGCONT)
        out, _ = child.communicate(timeout=30)
    assert out == b"0\n1\n2\n"


@pytest.mark.parametrize("armed", ["a.first", "a.first=explode", "a.first=kill@0", "a.first=kill@x"])
def test_a_wrong_arming_is_refused(armed: str) -> None:
    with pytest.raises(ConfigFault, match="SHMQ_FAULTS"):
        faults._parse(armed)


def test_reaching_an_undeclared_point_is_a_bug_once_anything_is_armed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "_armed", faults._parse("x.y=raise"))
    with pytest.raises(Bug, match="not declared"):
        faults._pass("x.y")


def test_two_modules_cannot_declare_one_name_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "KNOWN", {})
    faults.declare({"x.y": "window"})
    faults.declare({"x.y": "window"})
    with pytest.raises(Bug, match="declared twice"):
        faults.declare({"x.y": "another window"})
