"""What starts must start fast: the supervisor imports no numpy, the command line next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("shmq.supervisor.supervisor", {"numpy", "uvloop", "shmq.worker", "shmq.coordinator", "shmq.client"}),
        ("shmq.supervisor.main", {"numpy", "asyncio", "multiprocess", "shmq.supervisor.supervisor"}),
        ("shmq.naming.main", {"numpy", "uvloop", "multiprocess", "shmq.store"}),
        ("shmq.supervisor.shutdown", {"numpy", "asyncio", "multiprocess", "psutil"}),
    ],
)
def test_a_module_does_not_bring_what_it_does_not_need(module: str, unwanted: set[str]) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert unwanted & set(found) == set()


def test_an_empty_store_is_made_without_numpy(tmp_path: object) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from shmq.model.settings import BrokerSettings\n"
        "from shmq.store.recovery import open_or_recover\n"
        "from shmq.shm.control_page import ControlPage\n"
        f"root = Path({str(tmp_path)!r})\n"
        "report = open_or_recover(root, BrokerSettings(), owner_pid=1)\n"
        "ControlPage.unlink(report.page_name)\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr
