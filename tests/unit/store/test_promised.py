"""A view that was chosen by a damaged unit is not handed out because that unit was mended meanwhile."""

from __future__ import annotations

import pytest

from shmq.model.unit import UNIT_BYTES, UNIT_STRUCT
from shmq.store import promised
from shmq.store.promised import all_promised
from tests.helpers.store import OpenStore


@pytest.mark.parametrize("few", [promised.FEW, 0], ids=["one by one", "by arrays"])
def test_a_view_is_its_records_and_nothing_else(
    store: OpenStore, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(promised, "FEW", few)
    count = 10
    for n in range(count + 2):
        store.send("T", b"body %d" % n)
    queue = store.queue("T")
    path = store.layout.queue_file_path("T", queue.queue_id, 0)
    units = memoryview(path.read_bytes()[UNIT_BYTES : UNIT_BYTES * (count + 1)])  # all but first and last
    rows = list(UNIT_STRUCT.iter_unpack(units))
    start, end = rows[0][0], rows[-1][0] + rows[-1][1]
    log = memoryview(store.layout.segment_path(0).read_bytes())

    def check(first: int, last: int) -> bool:
        return all_promised(log[first:last], first, units, list(range(count)), queue.queue_id, 1)

    assert check(start, end)
    assert not check(start - 5, end), "the first unit's position was wrong"
    assert not check(start, end + 5), "the last one's size was"
    assert not check(start, end - 1)
    without_first = list(range(1, count))
    assert not all_promised(log[start:end], start, units, without_first, queue.queue_id, 1)
