"""Another commit of this repository, unpacked into a folder of its own: nothing is checked out here."""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent.parent


@contextmanager
def other_tree(ref: str) -> Iterator[Path]:
    """A folder whose `shmq` package is that of `ref`; SystemExit when git does not know it."""
    command = ["git", "archive", "--format=tar", ref, "shmq"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"--compare {ref}: {done.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory(prefix="shmq-bench-tree-") as folder:
        with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)
