"""Members come, go and are killed while listeners fail at random: nothing is lost, what repeats is explained.

`SHMQ_CHURN_SECONDS=600` makes the storm ten minutes long (then with `--timeout 900`).
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from shmq.embedded import Broker
from tests.helpers.churn import Churn, Member, Notes, judge


@pytest.mark.long
@pytest.mark.timeout(float(os.environ.get("SHMQ_CHURN_SECONDS", "20")) + 200)
def test_a_churning_group_consumes_everything_and_buries_what_failed_too_often(tmp_path: Path) -> None:
    seconds = float(os.environ.get("SHMQ_CHURN_SECONDS", "20"))
    seed = int(os.environ.get("SHMQ_CHURN_SEED", "1"))
    with Broker(brokerWorkers=2, messageDelayLevel="1s 1s 1s 1s 1s 1s") as broker:
        verdict = Churn(broker, tmp_path, seed).run(seconds)
    print(verdict)
    assert not verdict.faults, "\n".join(verdict.faults)
    assert verdict.dead


def noted(folder: Path, *logs: str, killed: tuple[int, ...] = (), left_ns: int = 0) -> Notes:
    """Notes of members that wrote these lines."""
    members = []
    for index, text in enumerate(logs):
        path = folder / f"m{index}"
        path.write_text("".join(f"{line.strip()}\n" for line in text.split(";")))
        members.append(Member(None, path, index in killed, left_ns))  # type: ignore[arg-type]
    return Notes(members)


S = 1_000_000_000
FAILS_ALWAYS = f"start {S} T 0 0 1 0; end {2 * S} T 0 0 fail;" + ";".join(
    f"start {S * (tries + 2)} R 0 {tries} 1 {tries}; end {S * (tries + 3)} R 0 {tries} fail"
    for tries in (1, 2, 3)
)


@pytest.mark.parametrize(
    ("logs", "killed", "sent", "dead", "fault"),
    [
        ((f"start {S} T 0 0 1 0; end {2 * S} T 0 0 ok",), (), {1}, {}, None),
        ((f"start {S} T 0 0 1 0; end {2 * S} T 0 0 ok",), (), {1, 2}, {}, "number 2 was never delivered"),
        ((f"start {S} T 0 0 1 0; end {2 * S} T 0 0 fail",), (), {1}, {}, "neither consumed nor buried"),
        ((f"start {S} T 0 0 1 0; end {2 * S} T 0 0 ok",), (), {1}, {1: 1}, "failed the last try less often"),
        ((FAILS_ALWAYS,), (), {1}, {1: 1}, None),
        ((FAILS_ALWAYS,), (), {1}, {}, "failed its last try and is not among"),
        ((f"start {S} T 0 0 40 0; end {2 * S} T 0 0 ok",), (), {40}, {}, "fails always and is not among"),
        ((f"start {S} R 0 0 1 1; end {2 * S} R 0 0 ok",), (), {1}, {}, "fewer failures before"),
        (
            (f"start {S} T 0 0 1 0; end {2 * S} T 0 0 ok", f"start {9 * S} T 0 0 1 0; end {10 * S} T 0 0 ok"),
            (),
            {1},
            {},
            "came again after",
        ),
        (
            (f"start {S} T 0 0 1 0; end {2 * S} T 0 0 ok", f"start {9 * S} T 0 0 1 0; end {10 * S} T 0 0 ok"),
            (0,),
            {1},
            {},
            None,
        ),
        (
            (
                f"start {S} T 0 0 1 0; end {2 * S} T 0 0 ok; drop {8 * S} T 0",
                f"start {9 * S} T 0 0 1 0; end {10 * S} T 0 0 ok",
            ),
            (),
            {1},
            {},
            "came again after",
        ),
        (
            (
                f"start {S} T 0 0 1 0; start {S} T 0 1 2 0; end {2 * S} T 0 1 ok; drop {8 * S} T 0;"
                f"end {9 * S} T 0 0 ok",
                f"start {9 * S} T 0 0 1 0; end {10 * S} T 0 0 ok;"
                f"start {9 * S} T 0 1 2 0; end {10 * S} T 0 1 ok",
            ),
            (),
            {1, 2},
            {},
            None,
        ),
    ],
)
def test_the_judge_finds_what_is_wrong_and_explains_what_is_not(
    tmp_path: Path,
    logs: tuple[str, ...],
    killed: tuple[int, ...],
    sent: set[int],
    dead: dict[int, int],
    fault: str | None,
) -> None:
    verdict = judge(sent, noted(tmp_path, *logs, killed=killed), Counter(dead))
    if fault is None:
        assert verdict.faults == []
    else:
        assert any(fault in one for one in verdict.faults), verdict.faults
