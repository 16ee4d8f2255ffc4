"""The built wheel, alone in an empty environment, starts a broker that takes and gives a message."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """
import shmq
from shmq.embedded import Broker
assert "site-packages" in shmq.__file__, shmq.__file__
with Broker() as broker:
    with shmq.Producer("WheelProducer", namesrv_addr=broker.namesrv_addr) as producer:
        sent = producer.send(shmq.Message("Wheel", b"from a wheel"))
    with shmq.PullConsumer("WheelConsumer", namesrv_addr=broker.namesrv_addr) as consumer:
        found = consumer.pull(sent.message_queue, "*", sent.queue_offset, 1)
    assert bytes(found.messages[0].body) == b"from a wheel"
print("wheel works")
"""


def _run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_wheel_in_an_empty_environment_starts_a_broker(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: setuptools leaves its working files beside what it builds
    shutil.copytree(ROOT / "shmq", source / "shmq", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", source, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("shmq-*.whl")
    _run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", "--only-binary", ":all:", wheel, cwd=tmp_path)
    assert "wheel works" in _run(python, "-c", PROGRAM, cwd=tmp_path)
    scripts = {path.name for path in python.parent.glob("shmq-*")}
    assert scripts == {"shmq-admin", "shmq-broker", "shmq-namesrv", "shmq-shutdown"}
    assert "clusterList" in _run(python.with_name("shmq-admin"), "--help", cwd=tmp_path)
