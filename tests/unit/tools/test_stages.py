"""Stage costs: every traced function exists, figures outlive their process, the model is plain arithmetic."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import stages
from bench.stages import LOCK_HELD, OVERHEAD, Model, Stage

SPEC = importlib.util.spec_from_file_location("hook_under_test", stages.HOOK / "sitecustomize.py")
assert SPEC is not None and SPEC.loader is not None
HOOK = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(HOOK)


@pytest.mark.parametrize(("module", "path"), [stage[1:] for stage in HOOK.STAGES])
def test_a_traced_function_exists(module: str, path: str) -> None:
    """A stage whose function got another name would silently have no figures."""
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    assert callable(found)


def traced(tmp_path: Path, program: str) -> dict[str, Stage]:
    """What a process noted that ran `program` with the hook on its path."""
    folder = tmp_path / "stages"
    env = stages.environment(folder)
    paths = os.pathsep.join([str(stages.HOOK), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **env, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return stages.read(folder)


USE = "from shmq.protocol.frame import FrameDecoder; decoder = FrameDecoder(); decoder.feed(b''); "


def test_calls_of_a_process_that_was_killed_are_known(tmp_path: Path) -> None:
    found = traced(tmp_path, USE + "import os; decoder.feed(b''); os.kill(os.getpid(), 9)")
    assert found["cut frames"].calls == 2 and found["cut frames"].nanoseconds > 0
    assert found["append"] == Stage()
    assert found[OVERHEAD].calls > 0


def test_a_forked_child_has_figures_of_its_own(tmp_path: Path) -> None:
    found = traced(
        tmp_path, USE + "import os; child = os.fork(); decoder.feed(b''); child and os.waitpid(child, 0)"
    )
    assert found["cut frames"].calls == 3, "one before the fork, one in each process after it"
    assert len(list((tmp_path / "stages").iterdir())) == 2


def test_the_lock_is_held_from_the_end_of_acquire_to_release(tmp_path: Path) -> None:
    # The real lock needs a page; what matters here is where the hook looks at the clock, which only we turn.
    program = """
import sitecustomize
from shmq.shm.append_lock import AppendLock
now = 0
def pass_time(nanoseconds):
    global now
    now += nanoseconds
    return True
sitecustomize._clock = lambda: now
class Semaphore:
    def release(self): pass_time(100)
lock = AppendLock.__new__(AppendLock)
lock._words, lock._phase, lock._seq, lock._semaphore = [0] * 100_000, 1, 2, Semaphore()
AppendLock._enter = lambda self: pass_time(1000)
with lock:
    pass_time(10)
"""
    assert traced(tmp_path, program)[LOCK_HELD] == Stage(1, 10), (
        "neither the wait before nor the ringing after"
    )


def test_without_the_environment_nothing_is_traced(tmp_path: Path) -> None:
    program = USE + "print(FrameDecoder.feed.__module__, hasattr(FrameDecoder.feed, '__wrapped__'))"
    paths = os.pathsep.join([str(stages.HOOK), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["shmq.protocol.frame", "False"], done.stderr


def test_a_difference_of_readings_leaves_the_calibration_as_it_was() -> None:
    before = {name: Stage(1, 10) for name in stages.NAMES}
    after = {name: Stage(3, 50) for name in stages.NAMES}
    found = stages.since(before, after)
    assert found["append"] == Stage(2, 40) and found[OVERHEAD] == Stage(3, 50)


def test_the_model_is_bound_by_cores_until_the_lock_is_always_held() -> None:
    model = Model(cpu_us=20, lock_us=2)
    assert model.rate(4) == 200_000 and model.lock_share(4) == pytest.approx(0.4)
    assert model.saturation_cores == 10
    assert model.rate(16) == model.rate(64) == 500_000 and model.lock_share(64) == pytest.approx(1)
