"""What a consumer says of itself."""

from __future__ import annotations

import json
import threading

from shmq.client.running_info import encode_running_info, thread_stacks


def test_the_stacks_of_all_threads_are_told_by_name() -> None:
    began, end = threading.Event(), threading.Event()

    def stuck_in_here() -> None:
        began.set()
        end.wait(20)

    thread = threading.Thread(target=stuck_in_here, name="a-listener")
    thread.start()
    began.wait(20)
    try:
        found = thread_stacks()
    finally:
        end.set()
        thread.join()
    assert f"a-listener TID: {thread.ident}\n" in found
    assert "in stuck_in_here" in found and "in test_the_stacks_of_all_threads_are_told_by_name" in found


def test_stacks_are_told_only_when_they_were_asked_for() -> None:
    assert "jstack" not in json.loads(encode_running_info({}, [], {}, {}, {}))
    assert json.loads(encode_running_info({}, [], {}, {}, {}, "stacks"))["jstack"] == "stacks"
