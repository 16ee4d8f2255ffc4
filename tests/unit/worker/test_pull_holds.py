"""Held pulls: the park protocol, wakes, deadlines and bounds, with a page of plain dictionaries."""

from __future__ import annotations

import pytest

from shmq.broker import limits
from shmq.broker.pull_holds import PullHolds, Wake, hold_until
from shmq.shm.queue_table import QueueRef

Q0, Q1 = QueueRef("T", 0, 10, 2), QueueRef("T", 1, 11, 2)


class Parking:
    """Ring words and queue maxima of a page that is not there."""

    def __init__(self) -> None:
        self.parked: set[int] = set()
        self.maxima: dict[int, int] = {}
        self.flush = False
        self.log_end: tuple[int, int] | None = None

    def park(self, queue: QueueRef) -> None:
        self.parked.add(queue.slot)

    def unpark(self, queue: QueueRef) -> None:
        self.parked.remove(queue.slot)

    def max_offset(self, queue: QueueRef) -> int:
        return self.maxima.get(queue.slot, 0)

    def positions(self) -> tuple[int, int] | None:
        return self.log_end

    def await_flush(self, wanted: bool) -> None:
        self.flush = wanted


class Hold:
    """A held pull whose outcome the test decides: each wake takes the next of `outcomes`."""

    group = "G"

    def __init__(self, queue: QueueRef = Q0, offset: int = 0, *outcomes: int | None) -> None:
        self.queues: tuple[QueueRef, ...] = (queue,)
        self.scan_offset = offset
        self.outcomes = list(outcomes)
        self.woken: list[Wake] = []
        self.key = queue.queue_id

    def is_behind(self, queue: QueueRef, max_offset: int) -> bool:
        assert queue in self.queues
        return max_offset > self.scan_offset

    def wake(self, why: Wake, now_ms: int) -> int | None:
        self.woken.append(why)
        return self.outcomes.pop(0) if self.outcomes else None


@pytest.fixture
def parking() -> Parking:
    return Parking()


@pytest.fixture
def holds(parking: Parking) -> PullHolds:
    return PullHolds(parking, lambda name, n: None)


def test_the_first_hold_of_a_queue_parks_and_the_last_one_unparks(holds: PullHolds, parking: Parking) -> None:
    for _ in range(2):
        assert holds.park(Hold(), 1, 1000, 0)
    assert parking.parked == {10} and len(holds) == 2
    parking.maxima[10] = 1
    holds.step(5)
    assert parking.parked == set() and len(holds) == 0


def test_a_hold_is_not_looked_at_before_its_queue_has_moved_past_it(
    holds: PullHolds, parking: Parking
) -> None:
    hold = Hold(Q0, 7)
    holds.park(hold, 1, 1000, 0)
    parking.maxima[10] = 7
    holds.step(1)
    assert hold.woken == []
    parking.maxima[10] = 8
    holds.step(2)
    assert hold.woken == [Wake.NEW_MESSAGES]


def test_messages_that_came_between_the_read_and_the_parking_are_seen(
    holds: PullHolds, parking: Parking
) -> None:
    parking.maxima[10] = 1
    hold = Hold()
    assert holds.park(hold, 1, 1000, 0)
    assert hold.woken == [Wake.NEW_MESSAGES] and len(holds) == 0


def test_the_deadline_answers_and_ends_the_hold(holds: PullHolds) -> None:
    hold = Hold()
    holds.park(hold, 1, 1000, 0)
    assert holds.step(999) == 1000
    assert holds.step(1000) is None
    assert hold.woken == [Wake.TIMED_OUT] and len(holds) == 0


def test_holds_end_on_common_ticks_late_by_at_most_a_tenth() -> None:
    for hold_ms in (0, 1, 50, 300, 15_000, 60_000):
        ends = {hold_until(now_ms, hold_ms) for now_ms in range(1_000_000, 1_000_500)}
        tick_ms = max(1, hold_ms // 10)
        assert all(end % tick_ms == 0 for end in ends)
        late = [hold_until(now_ms, hold_ms) - now_ms - hold_ms for now_ms in range(1_000_000, 1_000_500)]
        assert min(late) >= 0 and max(late) < tick_ms
    assert len({hold_until(now_ms, 15_000) for now_ms in range(1_000_000, 1_001_000)}) <= 2


def test_many_that_are_due_at_once_end_in_several_turns(holds: PullHolds) -> None:
    parked = [Hold() for _ in range(limits.HOLDS_ENDED_PER_TURN + 10)]
    for hold in parked:
        holds.park(hold, 1, 1000, 0)
    assert holds.step(1001) == 1000, "there is more, at once"
    assert len(holds) == 10
    assert holds.step(1001) is None
    assert [hold.woken for hold in parked] == [[Wake.TIMED_OUT]] * len(parked)


def test_a_hold_that_stays_may_bring_its_deadline_forward(holds: PullHolds, parking: Parking) -> None:
    hold = Hold(Q0, 0, 500, 500)
    holds.park(hold, 1, 1000, 0)
    parking.maxima[10] = 1
    assert holds.step(1) == 500
    parking.maxima[10] = 0
    assert holds.step(500) is None
    assert hold.woken[-1] is Wake.TIMED_OUT


def test_messages_that_are_not_visible_yet_are_waited_for_at_the_flush(
    holds: PullHolds, parking: Parking
) -> None:
    hold = Hold(Q0, 0, 10_000, 10_000, 10_000)
    holds.park(hold, 1, 1000, 0)
    assert not parking.flush
    parking.maxima[10] = 1
    holds.step(1)
    assert parking.flush and len(holds) == 1
    assert len(hold.woken) >= 2, "it looks again after it parked for the flush"
    hold.outcomes.clear()
    holds.step(2)
    assert not parking.flush and len(holds) == 0


def test_a_closed_connection_takes_only_its_own_holds_along(holds: PullHolds, parking: Parking) -> None:
    gone, stays = Hold(Q0), Hold(Q1)
    holds.park(gone, 1, 1000, 0)
    holds.park(stays, 2, 1000, 0)
    holds.drop_owner(1)
    assert parking.parked == {11}
    holds.step(1000)
    assert gone.woken == [] and stays.woken == [Wake.TIMED_OUT]


def test_a_bound_refuses_more_holds_of_one_connection(
    holds: PullHolds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HOLDS_PER_CONNECTION_MAX", 2)
    assert holds.park(Hold(), 1, 1000, 0) and holds.park(Hold(), 1, 1000, 0)
    assert not holds.park(Hold(), 1, 1000, 0)
    assert holds.park(Hold(), 2, 1000, 0)
    monkeypatch.setattr(limits, "HOLDS_MAX", 3)
    assert not holds.park(Hold(), 3, 1000, 0)


def test_changed_rules_are_applied_to_the_holds_they_concern(holds: PullHolds) -> None:
    first, second = Hold(Q0, 0, 5000, 5000), Hold(Q1._replace(topic="OTHER"))
    second.group = "OTHERS"
    holds.park(first, 1, 9000, 0)
    holds.park(second, 1, 9000, 0)
    holds.look_again("T", None, 1)
    assert first.woken == [Wake.RULES_CHANGED] and second.woken == []
    holds.look_again(None, "G", 1)
    assert first.woken == [Wake.RULES_CHANGED] * 2 and second.woken == []
    holds.look_again(None, "OTHERS", 1)  # this one is answered
    assert second.woken == [Wake.RULES_CHANGED] and len(holds) == 1
    holds.look_again(None, None, 1)
    assert len(first.woken) == 3 and len(second.woken) == 1


def test_draining_answers_everything(holds: PullHolds, parking: Parking) -> None:
    parked = [Hold(Q0), Hold(Q1), Hold(Q1)]
    for hold in parked:
        holds.park(hold, 1, 1000, 0)
    holds.release_all(1)
    assert [hold.woken for hold in parked] == [[Wake.TIMED_OUT]] * 3
    assert len(holds) == 0 and parking.parked == set()


def test_ten_thousand_answered_holds_leave_nothing_in_the_heap(holds: PullHolds, parking: Parking) -> None:
    for n in range(10_000):
        parking.maxima[10] = n
        holds.park(Hold(Q0, n), 1, 1000 + n, 0)
        parking.maxima[10] = n + 1
        holds.step(0)
    assert len(holds._deadlines) < 200


def test_queues_are_looked_at_only_when_the_log_has_moved(holds: PullHolds, parking: Parking) -> None:
    hold = Hold(Q0, 0)
    holds.park(hold, 1, 1000, 0)
    parking.log_end = (100, 100)
    holds.step(5)
    parking.maxima[10] = 1  # no page moves a queue without its log: this shows who looks
    holds.step(6)
    assert hold.woken == []
    parking.log_end = (100, 200)
    holds.step(7)
    assert hold.woken == [Wake.NEW_MESSAGES]


def test_a_claim_that_is_being_published_is_looked_at_again(holds: PullHolds, parking: Parking) -> None:
    hold = Hold(Q0, 0)
    holds.park(hold, 1, 1000, 0)
    holds.step(5)  # in the middle of it: the end of the log has moved, the queue has not
    parking.maxima[10] = 1
    parking.log_end = (100, 100)
    holds.step(6)
    assert hold.woken == [Wake.NEW_MESSAGES]


def test_a_hold_can_be_ended_alone(holds: PullHolds, parking: Parking) -> None:
    first, second, other = Hold(Q0), Hold(Q0), Hold(Q1)
    for hold in (first, second, other):
        holds.park(hold, 1, 1000, 0)
    holds.end(first, 1)
    holds.end(first, 1)
    holds.end(other, 1)
    assert len(holds) == 1 and parking.parked == {10}
    parking.maxima |= {10: 1, 11: 1}
    holds.step(5)
    assert first.woken == other.woken == [Wake.TIMED_OUT] and second.woken == [Wake.NEW_MESSAGES]


def test_a_hold_of_many_queues_is_woken_by_any_of_them_once(holds: PullHolds, parking: Parking) -> None:
    both, other = Hold(Q0, 0), Hold(Q1, 0)
    both.queues = (Q0, Q1)
    holds.park(both, 1, 1000, 0)
    holds.park(other, 2, 1000, 0)
    assert parking.parked == {10, 11} and len(holds) == 3
    parking.maxima[10] = 1
    holds.step(5)
    assert both.woken == [Wake.NEW_MESSAGES] and other.woken == []
    assert parking.parked == {11} and len(holds) == 1, "the second queue has another hold"
    both.woken.clear()
    parking.maxima |= {10: 0, 11: 0}
    holds.park(both, 1, 1000, 0)
    parking.maxima |= {10: 1, 11: 1}
    holds.step(6)
    assert (both.woken, other.woken) == ([Wake.NEW_MESSAGES], [Wake.NEW_MESSAGES])
    assert not parking.parked and len(holds) == 0


def test_a_hold_of_many_queues_is_judged_once_when_their_topic_changes(holds: PullHolds) -> None:
    both = Hold(Q0, 0, 5000)
    both.queues = (Q0, Q1)
    holds.park(both, 1, 9000, 0)
    holds.look_again("OTHER", None, 1)
    assert both.woken == []
    holds.look_again("T", None, 1)
    assert both.woken == [Wake.RULES_CHANGED]


def test_a_hold_that_stays_when_its_time_is_over_is_prolonged_or_ends(
    holds: PullHolds, parking: Parking
) -> None:
    hold = Hold(Q0, 0, 1500, 2500)
    holds.park(hold, 1, 1000, 0)
    assert holds.staying(1, hold.key) is None, "its time is not over"
    assert holds.step(1000) == 1500, "it stays for its client's next request"
    assert parking.parked == {10} and len(holds) == 1
    assert holds.staying(1, hold.key) is hold
    assert holds.staying(2, hold.key) is None and holds.staying(1, "other") is None
    holds.prolong(hold, 2000)
    assert holds.staying(1, hold.key) is None
    assert holds.step(1500) == 2000, "the time to ask again counts no more"
    assert holds.step(2000) == 2500 and holds.staying(1, hold.key) is hold
    assert holds.step(2500) is None
    assert hold.woken == [Wake.TIMED_OUT] * 2, "who was answered is not woken"
    assert holds.staying(1, hold.key) is None and parking.parked == set() and len(holds) == 0


@pytest.mark.parametrize("what", ["news", "topic", "group", "all", "closed", "end", "drained"])
def test_whatever_happens_to_a_hold_that_stays_ends_it_without_an_answer(
    holds: PullHolds, parking: Parking, what: str
) -> None:
    hold = Hold(Q0, 0, 1500)
    holds.park(hold, 1, 1000, 0)
    holds.step(1000)
    if what == "news":
        parking.maxima[10] = 1
        holds.step(1100)
    elif what == "closed":
        holds.drop_owner(1)
    elif what == "end":
        holds.end(hold, 1100)
    elif what == "drained":
        holds.release_all(1100)
    else:
        holds.look_again(*{"topic": ("T", None), "group": (None, "G"), "all": (None, None)}[what], 1100)
    assert hold.woken == [Wake.TIMED_OUT] and holds.staying(1, hold.key) is None
    assert len(holds) == 0 and not parking.parked and holds.step(2000) is None


def test_of_two_holds_alike_the_one_that_ended_last_stays(holds: PullHolds) -> None:
    first, second = Hold(Q0, 0, 1500, 3000), Hold(Q0, 0, 1600)
    holds.park(first, 1, 1000, 0)
    holds.park(second, 1, 1100, 0)
    holds.step(1000)
    assert holds.staying(1, first.key) is first
    holds.step(1100)
    assert holds.staying(1, first.key) is second and len(holds) == 1
    assert holds.step(1600) is None and len(holds) == 0
