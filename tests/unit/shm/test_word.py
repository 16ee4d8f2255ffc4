from __future__ import annotations

import pytest

from shmq.base.errors import Bug
from shmq.shm.word import fence, map_words


def test_words_are_eight_bytes_in_native_order() -> None:
    memory = bytearray(24)
    words = map_words(memory)
    words[1] = -2
    assert len(words) == 3
    assert memory[8:16] == b"\xfe" + b"\xff" * 7


def test_a_length_that_is_no_whole_number_of_words_is_refused() -> None:
    with pytest.raises(Bug):
        map_words(bytearray(12))


def test_fence_can_be_repeated() -> None:
    fence()
    fence()
