from __future__ import annotations

from shmq.shm import page_layout as at


def test_every_constant_that_names_a_word_is_in_the_table() -> None:
    named = {field.name: field.word for field in at.FIELDS}
    for name, word in named.items():
        assert getattr(at, name) == word
    assert len(named) == len(at.FIELDS)


def test_the_default_page_stays_below_sixteen_mebibytes() -> None:
    """A container's /dev/shm has 64 MiB."""
    assert at.page_bytes(65536, 65536, 2 << 20, 1024) < 16 << 20


def test_the_parts_lie_behind_each_other() -> None:
    assert at.offset_slots_start(10) == at.QUEUE_TABLE + 80
    assert at.directory_start(10, 6) == (at.QUEUE_TABLE + 80 + 12) * 8
    producers = at.producers_start(10, 6, 4096)
    assert producers % at.LINE_WORDS == 0 and 0 <= producers * 8 - at.directory_start(10, 6) - 4096 < 64
    assert at.page_bytes(10, 6, 4096) == producers * 8
    assert at.page_bytes(10, 6, 4096, 3) == (producers + 3 * at.PRODUCER_WORDS) * 8
