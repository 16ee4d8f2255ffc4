"""Buffers that nobody has written to."""

from shmq.base.memory import unwritten


def test_an_unwritten_buffer_is_a_bytearray_of_that_size_and_of_nobody_else():
    for size in (0, 1, 8, 4096, 1 << 20):
        made, other = unwritten(size), unwritten(size)
        assert type(made) is bytearray and len(made) == size
        made[:] = b"x" * size
        other[:] = b"y" * size
        assert made == b"x" * size


def test_an_unwritten_buffer_takes_no_memory_before_it_is_written():
    def resident_bytes():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    before = resident_bytes()
    kept = [unwritten(64 << 20) for _ in range(8)]
    assert resident_bytes() - before < 64 << 20
    assert sum(map(len, kept)) == 512 << 20
