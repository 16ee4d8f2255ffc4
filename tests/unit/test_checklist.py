"""docs/checklist.md says the truth: its lines are complete, and every test it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
CHECKLIST = TESTS.parent / "docs" / "checklist.md"
OPERATED = [*range(251, 257), 263, 264, 266]
ANSWERED = [267, 268, 269, 270, 271, 272]
PROMISED = [*range(1, 249), *OPERATED, *ANSWERED]
LATER = {25, 219, 220}

ROWS = {
    int(match[1]): match[2]
    for match in re.finditer(r"^\| (\d+) \| .* \| (.*) \|$", CHECKLIST.read_text(), re.M)
}


def test_every_promised_line_is_there_once_and_in_order() -> None:
    assert list(ROWS) == PROMISED


def test_exactly_the_lines_of_later_work_are_marked_so() -> None:
    assert {number for number, test in ROWS.items() if "*later*" in test} == LATER


@pytest.mark.parametrize("number", PROMISED)
def test_the_named_tests_exist(number: int) -> None:
    named = re.findall(r"`([\w/.]+)::(\w+)`", ROWS[number])
    assert named or number in LATER
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.M), f"{file}::{name}"
