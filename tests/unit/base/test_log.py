from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.base import log


@pytest.fixture(autouse=True)
def root_logger_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for handler in handlers:
        root.removeHandler(handler)
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)


def test_one_event_is_one_line_of_pairs(tmp_path: Path) -> None:
    log.setup("worker-0", tmp_path)
    log.event(log.get("shmq.x"), logging.INFO, "connection_closed", reason='bad "frame"', peer="unix:1", n=3)
    line = (tmp_path / "broker.log").read_text()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO  worker-0 shmq\.x: "
        r'connection_closed reason="bad \\"frame\\"" peer=unix:1 n=3\n',
        line,
    )


def test_line_ends_in_values_and_tracebacks_stay_in_the_line(tmp_path: Path) -> None:
    log.setup("worker-0", tmp_path)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.event(log.get("x"), logging.ERROR, "failed", text="a\nb", exc_info=True)
    lines = (tmp_path / "broker.log").read_text().splitlines()
    assert len(lines) == 1
    assert 'text="a\\nb"' in lines[0] and "ValueError: two\\nlines" in lines[0]


def test_events_below_the_level_are_not_written(tmp_path: Path) -> None:
    log.setup("worker-0", tmp_path, logging.WARNING)
    log.event(log.get("x"), logging.INFO, "quiet")
    assert (tmp_path / "broker.log").read_text() == ""


def test_without_a_folder_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("namesrv", None)
    log.event(log.get("x"), logging.INFO, "started")
    assert capsys.readouterr().err.endswith("namesrv x: started\n")


def test_under_systemd_the_journal_gets_the_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stderr = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{stderr.st_dev}:{stderr.st_ino}")
    log.setup("namesrv", tmp_path)
    log.event(log.get("x"), logging.INFO, "started")
    assert "started" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_inherited_journal_variable_alone_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    log.setup("namesrv", tmp_path)
    assert (tmp_path / "broker.log").exists()


def test_a_full_file_is_rotated_and_two_writers_agree_on_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LOG_BYTES_MAX", 300)
    monkeypatch.setattr(log, "LOG_FILES_KEPT", 2)
    log.setup("one", tmp_path)
    first = logging.getLogger().handlers[0]
    second = type(first)(tmp_path / "broker.log")
    second.setFormatter(first.formatter)
    for n in range(12):
        record = logging.makeLogRecord({"name": "x", "msg": f"event_{n} {'.' * 60}", "levelname": "INFO"})
        (first if n % 2 else second).handle(record)
    second.close()
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["broker.log", "broker.log.1", "broker.log.2", "broker.log.lock"]
    newest = (tmp_path / "broker.log.1").read_text() + (tmp_path / "broker.log").read_text()
    assert "event_11" in newest
