"""Heartbeats that need no judging."""

from __future__ import annotations

from shmq.worker.known_beats import KnownBeats

ONE, TWO = KnownBeats.digest(b"one"), KnownBeats.digest(b"two")


def test_only_what_was_accepted_from_this_connection_is_known() -> None:
    beats = KnownBeats()
    assert not beats.knows(1, ONE)
    beats.learn(1, ONE, beats.generation)
    assert beats.knows(1, ONE) and not beats.knows(1, TWO) and not beats.knows(2, ONE)


def test_who_lives_is_told_once() -> None:
    beats = KnownBeats()
    for connection in (2, 1, 2):
        beats.lives(connection)
    assert beats.take_beaten() == [1, 2] and beats.take_beaten() == []


def test_a_change_makes_it_forget_and_what_was_asked_before_is_not_learned() -> None:
    beats = KnownBeats()
    before = beats.generation
    beats.learn(1, ONE, before)
    beats.forget_all()
    assert not beats.knows(1, ONE)
    beats.learn(2, TWO, before)
    assert not beats.knows(2, TWO)


def test_who_left_is_forgotten_and_what_was_not_told_is_kept() -> None:
    beats = KnownBeats()
    for connection in (1, 2):
        beats.learn(connection, ONE, beats.generation)
        beats.lives(connection)
    beats.forget(1)
    taken = beats.take_beaten()
    beats.give_back(taken)
    assert taken == beats.take_beaten() == [2]
    assert not beats.knows(1, ONE)


def test_who_waits_lives_until_its_answer_and_as_long_as_its_connection() -> None:
    beats = KnownBeats()
    assert not beats.all_waiting_live() and beats.take_beaten() == []
    for connection in (1, 2, 3):
        beats.waits(connection, True)
    assert beats.take_beaten() == [1, 2, 3], "asking is a sign of life"
    assert beats.all_waiting_live() and beats.take_beaten() == [1, 2, 3]
    beats.waits(1, False)
    assert beats.take_beaten() == [1], "it is silent from now on"
    beats.forget(2)
    assert beats.all_waiting_live() and beats.take_beaten() == [3] and beats.waiting == {3}
