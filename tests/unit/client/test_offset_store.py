"""Offset stores: memory first, upwards only, persisted where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest

from shmq.base.errors import ClientFault
from shmq.client import offset_store
from shmq.client.errors import RemotingError
from shmq.client.offset_store import NO_OFFSET, LocalOffsetStore, ReadCount, ReadMode, RemoteOffsetStore
from shmq.model.message_queue import MessageQueue

QUEUE = MessageQueue("T", "broker-a", 1)
Commit = tuple[MessageQueue, int, ReadCount, bool, bool]


def remote(commits: list[Commit], stored: int = NO_OFFSET) -> RemoteOffsetStore:
    return RemoteOffsetStore(lambda queue: stored, lambda *commit: commits.append(commit))


def test_updates_go_upwards_unless_forced() -> None:
    store = remote([])
    store.update(QUEUE, 5)
    store.update(QUEUE, 3)
    assert store.read(QUEUE, ReadMode.MEMORY) == 5
    store.update(QUEUE, 3, increase_only=False)
    assert store.read(QUEUE, ReadMode.MEMORY) == 3


def test_reading_looks_where_it_is_told() -> None:
    store = remote([], stored=40)
    assert store.read(QUEUE, ReadMode.MEMORY) == NO_OFFSET
    assert store.read(QUEUE, ReadMode.MEMORY_THEN_STORE) == 40
    store.update(QUEUE, 50)
    assert store.read(QUEUE, ReadMode.MEMORY_THEN_STORE) == 50
    assert store.read(QUEUE, ReadMode.STORE) == 40


def test_counts_of_direct_reads_travel_with_the_commit_once() -> None:
    commits: list[Commit] = []
    store = remote(commits)
    store.count_read(QUEUE, 3, 300)
    store.count_read(QUEUE, 2, 200)
    store.persist([QUEUE])
    store.update(QUEUE, 7)
    store.persist([QUEUE], wait=True)
    assert commits == [
        (QUEUE, NO_OFFSET, ReadCount(5, 500), True, True),
        (QUEUE, 7, ReadCount(), False, True),
    ]


def test_a_failed_commit_keeps_offset_and_count_for_the_next() -> None:
    commits: list[Commit] = []
    failing = [True]

    def commit(*values: object) -> None:
        if failing.pop() if failing else False:
            raise RemotingError("gone")
        commits.append(values)  # type: ignore[arg-type]

    store = RemoteOffsetStore(lambda queue: NO_OFFSET, commit)
    store.update(QUEUE, 9)
    store.count_read(QUEUE, 1, 100)
    store.persist([QUEUE])
    store.persist([QUEUE])
    assert commits == [(QUEUE, 9, ReadCount(1, 100), True, True)]


def test_an_offset_that_does_not_move_rests_after_three_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[Commit] = []
    store = remote(commits)

    def committed(times: int = 5) -> list[int]:
        commits.clear()
        for _ in range(times):
            store.persist([QUEUE])
        return [offset for _, offset, *_ in commits]

    store.update(QUEUE, 9)
    assert committed() == [9, 9, 9]
    assert committed() == []
    store.persist([QUEUE], wait=True)
    assert len(commits) == 1, "who gives the queue away wants to be sure"
    store.count_read(QUEUE, 1, 100)
    assert committed() == [9], "with the count"
    store.update(QUEUE, 10)
    assert committed() == [10, 10, 10], "it moved"
    store.tell_again()
    assert committed() == [10, 10, 10], "its broker was away"
    store.update(QUEUE, 4, increase_only=False)
    assert committed() == [4, 4, 4], "it was wanted back"
    store.update(QUEUE, 4)
    assert committed() == []
    store.update(QUEUE, 4, increase_only=False)
    assert committed() == [4, 4, 4], "it was wanted again"
    monkeypatch.setattr(offset_store, "COMMIT_AGAIN_S", 0.0)
    store.tell_again()
    assert committed() == [4] * 5, "and once in a while"


def test_a_broker_that_would_tell_of_a_change_is_not_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offset_store, "COMMIT_AGAIN_S", 0.0)
    commits: list[int] = []
    told = True
    store = RemoteOffsetStore(
        lambda queue: NO_OFFSET, lambda queue, offset, *_: commits.append(offset), lambda: told
    )
    store.update(QUEUE, 9)
    for _ in range(8):
        store.persist([QUEUE])
    assert commits == [9, 9, 9]
    store.tell_again()
    store.persist([QUEUE])
    assert commits == [9] * 4, "its group has changed"
    told = False
    for _ in range(8):
        store.persist([QUEUE])
    assert commits == [9] * 12, "the consumer rests no more"


def test_a_commit_under_way_when_its_broker_comes_back_does_not_count() -> None:
    commits: list[int] = []

    def commit(_queue: MessageQueue, offset: int, *_: object) -> None:
        commits.append(offset)
        if len(commits) == 3:
            store.tell_again()

    store = RemoteOffsetStore(lambda queue: NO_OFFSET, commit)
    store.update(QUEUE, 9)
    for _ in range(8):
        store.persist([QUEUE])
    assert commits == [9] * 6, "three after the return"


def test_a_removed_queue_is_forgotten() -> None:
    commits: list[Commit] = []
    store = remote(commits)
    store.update(QUEUE, 9)
    store.remove(QUEUE)
    store.persist([QUEUE])
    assert not commits


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROCKETMQ_LOCAL_OFFSET_STORE_DIR", str(tmp_path))
    return tmp_path / "client" / "group" / "offsets.json"


def test_the_local_file_has_rocketmqs_form_and_is_read_back(local: Path) -> None:
    store = LocalOffsetStore("client", "group")
    store.load()
    store.update(QUEUE, 12)
    store.persist([QUEUE])
    assert local.read_text() == '{"offsetTable":{{"brokerName":"broker-a","queueId":1,"topic":"T"}:12}}'
    again = LocalOffsetStore("client", "group")
    again.load()
    assert again.read(QUEUE, ReadMode.STORE) == 12


def test_a_damaged_file_falls_back_to_its_backup(local: Path) -> None:
    store = LocalOffsetStore("client", "group")
    for offset in (1, 2):
        store.update(QUEUE, offset)
        store.persist([QUEUE])
    local.write_text('{"offsetTable":{')
    again = LocalOffsetStore("client", "group")
    again.load()
    assert again.read(QUEUE, ReadMode.STORE) == 1
    local.with_name("offsets.json.bak").write_text("nonsense")
    with pytest.raises(ClientFault, match="damaged"):
        LocalOffsetStore("client", "group").load()


def test_strict_writers_keys_are_understood(local: Path) -> None:
    local.parent.mkdir(parents=True)
    local.write_text(
        '{"offsetTable":{"{\\"brokerName\\":\\"broker-a\\",\\"queueId\\":1,\\"topic\\":\\"T\\"}":7}}'
    )
    store = LocalOffsetStore("client", "group")
    store.load()
    assert store.read(QUEUE, ReadMode.MEMORY) == 7


def test_a_commit_goes_back_once_when_somebody_wanted_that() -> None:
    commits: list[Commit] = []
    store = remote(commits, stored=40)
    assert store.read(QUEUE, ReadMode.STORE) == 40
    for offset, increase_only in ((50, True), (60, False), (20, False), (30, True)):
        store.update(QUEUE, offset, increase_only=increase_only)
        store.persist([QUEUE])
    assert [(offset, only_forward) for _, offset, _, _, only_forward in commits] == [
        (50, True),
        (60, True),
        (20, False),
        (30, True),
    ]


def test_a_commit_that_failed_may_still_go_back() -> None:
    """It waits for its answer: what went oneway before it could arrive behind it."""
    commits: list[Commit] = []
    fails = [True]

    def commit(*values: object) -> None:
        if fails.pop() if fails else False:
            raise RemotingError("no answer")
        commits.append(values)  # type: ignore[arg-type]

    store = RemoteOffsetStore(lambda queue: NO_OFFSET, commit)
    store.update(QUEUE, 5, increase_only=False)
    store.persist([QUEUE])
    store.persist([QUEUE])
    store.persist([QUEUE])
    assert [values[1:] for values in commits] == [
        (5, ReadCount(), False, False),
        (5, ReadCount(), True, True),
    ]
