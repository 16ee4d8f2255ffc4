"""Requests tied by `with_next`: in one claim, or not at all."""

from __future__ import annotations

import pytest

from shmq.base.errors import MessageIllegal, QueueGone, ServiceNotAvailable
from shmq.shm.page_layout import WRITE_POSITION
from shmq.shm.queue_table import generation_word
from shmq.store import append_claim
from shmq.store.append_request import AppendRequest
from tests.helpers.store import OpenStore, request


def tied(store: OpenStore, size: int, name: str = "A") -> list[AppendRequest]:
    """One request for topic `name`, tied to one for topic Marks."""
    first = request(store.queue(name), [b"x" * size])
    first.with_next = True
    return [first, request(store.queue("Marks"), [b"done"])]


def claims_of(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Where the log ended before each claim that published something."""
    ends: list[int] = []
    publish = append_claim.AppendJournal.publish

    def noted(journal: append_claim.AppendJournal) -> None:
        publish(journal)
        ends.append(store.page.words[WRITE_POSITION])

    monkeypatch.setattr(append_claim.AppendJournal, "publish", noted)
    return ends


def test_both_are_in_one_claim_wherever_a_segment_ends(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one's segment is missing at every possible place: the first waits with it."""
    ends = claims_of(store, monkeypatch)
    segment = store.settings.mapped_file_size_commit_log
    for left in (0, 4, 8, 60, 100, 130, 150, 200):  # behind the first one; the second takes about 100
        pair = tied(store, 3000)
        used = store.page.words[WRITE_POSITION] % segment
        filler = segment - used - len(pair[0].data) - left - len(request(pair[0].queue, [b"x"]).data) + 1
        store.append(request(pair[0].queue, [b"x" * filler]))
        first, second = store.append(*pair)
        assert first.error is None and second.error is None
        between = [end for end in ends if first.end <= end < second.end]
        assert not between, f"a claim ended at {between}, between {first} and {second}"
    assert store.page.words[WRITE_POSITION] > 6 * segment


def test_a_pair_behind_others_does_not_hold_them_up(store: OpenStore) -> None:
    free = store.settings.mapped_file_size_commit_log - store.page.words[WRITE_POSITION]
    alone = request(store.queue("A"), [b"x" * (free - 1000)])
    outcomes = store.store.append([alone, *tied(store, 800)])
    assert outcomes[0] is not None and outcomes[1] is None and outcomes[2] is None
    store.allocator.step()
    rest = store.append(*tied(store, 800))
    assert rest[1].error is None


def test_where_one_is_refused_the_other_is(store: OpenStore) -> None:
    store.send("Marks")
    pair = tied(store, 10)
    ended = pair[0].queue.slot
    store.page.words[generation_word(ended)] += 1
    first, second = store.append(*pair, request(store.queue("B"), [b"goes on"]))[:2]
    assert isinstance(first.error, QueueGone | ServiceNotAvailable)
    assert isinstance(second.error, QueueGone | ServiceNotAvailable)
    assert store.store.max(store.queue("Marks")) == 1
    assert store.store.max(store.queue("B")) == 1
    too_long = tied(store, store.settings.mapped_file_size_commit_log, "C")
    assert all(isinstance(outcome.error, MessageIllegal) for outcome in store.append(*too_long))


def test_a_turn_is_not_cut_inside_a_pair(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_claim, "CLAIM_BYTES_MAX", 2000)
    ends = claims_of(store, monkeypatch)
    requests = [part for _ in range(6) for part in tied(store, 700)]
    outcomes = store.append(*requests)
    for first, second in zip(outcomes[::2], outcomes[1::2], strict=True):
        assert not [end for end in ends if first.end <= end < second.end]
    assert len(ends) > 2


def test_a_pair_larger_than_a_turn_is_one_claim(store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_claim, "CLAIM_BYTES_MAX", 100)
    ends = claims_of(store, monkeypatch)
    first, second = store.append(*tied(store, 700))
    assert first.error is None and ends == [second.end]
