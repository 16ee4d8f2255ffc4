"""The programs and commands in the documents work as they are printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmq.admin import catalogue
from shmq.embedded import Broker

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
PRODUCER, CONSUMER = re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """A broker that the programs find by themselves, through the environment."""
    with Broker() as broker:
        yield {**os.environ, "SHMQ_NAMESRV": broker.namesrv_addr, "PYTHONUNBUFFERED": "1"}


def test_the_producer_and_the_consumer_of_the_readme_work(environment: dict[str, str]) -> None:
    consumer = CONSUMER.replace(
        'PushConsumer("OrderService")',
        'PushConsumer("OrderService", consume_from_where="CONSUME_FROM_FIRST_OFFSET")',
    )
    sent = subprocess.run(
        [sys.executable, "-c", PRODUCER],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert sent.returncode == 0, sent.stderr
    assert sent.stdout.startswith("SEND_OK")
    with subprocess.Popen(
        [sys.executable, "-c", consumer], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert line.endswith("b'order 1'\n")


def test_every_file_that_a_document_names_is_there() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"\]\(([\w./-]+)\)", document.read_text()):
            assert (document.parent / name).exists(), f"{document.name} links to {name}"
        for name in re.findall(r"`((?:shmq|tests|tools|conf|systemd|docs)/[\w./-]+)`", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_every_module_the_tour_names_is_there() -> None:
    for document in ("tour.md", "processes.md", "layout.md"):
        text = (ROOT / "docs" / document).read_text()
        for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text):
            assert any((base / name).exists() for base in (ROOT / "shmq", ROOT)), f"{document} names {name}"


def test_the_page_for_rocketmq_users_lists_every_command() -> None:
    text = (ROOT / "docs" / "from-rocketmq.md").read_text()
    for entry in catalogue.ENTRIES:
        assert f"`{entry.name}`" in text
        assert f"`{entry.grouped}`" in text


@pytest.mark.parametrize("tool", ["quickstart", "test", "bench"])
def test_every_tool_explains_itself(tool: str) -> None:
    assert shutil.which(str(ROOT / "tools" / tool))
    module = {"quickstart": ["-m", "quickstart"], "bench": ["-m", "bench"], "test": ["tools/lib/checks.py"]}[
        tool
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools" / "lib")}
    done = subprocess.run(
        [sys.executable, *module, "--help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"tools/{tool}" in done.stdout
