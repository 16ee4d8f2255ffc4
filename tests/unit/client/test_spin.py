"""The spinner catches quick answers and stops by itself when they are slow."""

from __future__ import annotations

import socket

from shmq.client.spin import SKIP_MAX, Spinner, spin_limit_ns


def test_an_answer_that_is_there_is_returned_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"answer")
        assert Spinner(1_000_000).receive(ours, 100) == b"answer"
        theirs.close()
        assert Spinner(1_000_000).receive(ours, 100) == b""


def test_slow_answers_switch_it_off_for_longer_and_longer() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        spinner = Spinner(1)
        skipped = []
        for _ in range(12):
            assert spinner.receive(ours, 100) is None  # spins, in vain
            skipped.append(spinner._skip)
            while spinner._skip:
                assert spinner.receive(ours, 100) is None
        assert skipped == [min(2 << n, SKIP_MAX) for n in range(12)]
        theirs.sendall(b"x")
        assert spinner.receive(ours, 100) == b"x" and spinner._penalty == SKIP_MAX // 2


def test_the_setting_decides_unless_it_says_adaptive() -> None:
    assert spin_limit_ns(0) == 0 and spin_limit_ns(70) == 70_000
    assert spin_limit_ns(-1) >= 0
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x")
        assert Spinner(0).receive(ours, 100) is None
