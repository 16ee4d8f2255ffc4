"""tools/quickstart on files that are hard to get right: empty, without line ends, long lines, odd names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
QUICKSTART = [sys.executable, "-m", "quickstart"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A few files with everything that breaks naive line handling."""
    folder = tmp_path / "odd % names:and blanks"
    folder.mkdir()
    contents = {
        "empty.py": b"",
        "no line end.txt": b"first\nlast without end",
        "blank lines": b"\n\n\n",
        "long.dat": b"x" * 3_000_000 + b"\n" + b"y" * 100_000,
        "bytes.bin": bytes(range(256)) * 40 + b"\r\n\x00\x01\x02\n",
        "ümläut €.py": "grüße\n".encode() * 300,
        os.fsdecode(b"not-utf8-\xff.py"): b"odd name\n" * 20,
    }
    paths = []
    for name, content in contents.items():
        path = folder / name
        path.write_bytes(content)
        paths.append(path)
    return paths


def _quickstart(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools" / "lib")}
    command = [*QUICKSTART, *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param([], id="as it is"),
        pytest.param(["--no-direct"], id="no direct", marks=pytest.mark.long),
        pytest.param(["--tcp", "--workers", "1"], id="tcp", marks=pytest.mark.long),
    ],
)
def test_every_file_comes_out_as_it_went_in(files: list[Path], switches: list[str]) -> None:
    done = _quickstart(*switches, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every file came out as it went in" in done.stdout


def test_an_unknown_file_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    done = _quickstart(tmp_path / "nothing.txt")
    assert done.returncode != 0
    assert "nothing.txt" in done.stderr
