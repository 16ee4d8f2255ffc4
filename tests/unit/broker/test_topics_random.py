"""Random lives of topics: created, deleted, interrupted, restarted, no queue offset is ever given twice."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from shmq.model.topic_config import TopicConfig
from tests.unit.broker.test_topics import Slots, registry

NAMES = st.sampled_from(["x", "y"])
STEPS = st.one_of(
    st.tuples(st.just("create"), NAMES, st.integers(1, 4)),
    st.tuples(st.just("append"), NAMES, st.integers(0, 3)),
    st.tuples(st.just("delete"), NAMES, st.just(0)),
    st.tuples(st.just("die in delete"), NAMES, st.just(0)),
    st.tuples(st.just("restart"), NAMES, st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_no_queue_offset_is_ever_given_twice(steps: list[tuple[str, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        slots = Slots(100_000)
        topics = registry(Path(folder), slots)
        given_out: dict[tuple[str, int], int] = {}
        for what, name, number in steps:
            match what:
                case "create":
                    topics.update(TopicConfig(name, number, number))
                case "append" if number < slots.count(name):
                    offset = slots.queues[name][number]
                    assert offset >= given_out.get((name, number), 0)
                    slots.queues[name][number] = given_out[name, number] = offset + 1
                case "delete":
                    topics.delete(name)
                case "die in delete":
                    slots.fail_next_retire = True
                    with contextlib.suppress(OSError):
                        topics.delete(name)
                    slots.fail_next_retire = False
                    topics = registry(Path(folder), slots)
                case "restart":
                    topics = registry(Path(folder), slots)
            listed = {config.topic_name for config in topics}
            assert {topic for topic in ("x", "y") if slots.count(topic)} == listed & {"x", "y"}
