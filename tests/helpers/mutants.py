"""Mutants of real frames, for what must survive hostile input."""

from __future__ import annotations

import random


def mutate(chosen: random.Random, corpus: list[bytes]) -> bytes:
    """One real frame, changed: bits, bytes, numbers, length, or spliced with another."""
    data = bytearray(chosen.choice(corpus))
    for _ in range(chosen.choice((1, 1, 1, 2, 5))):
        if len(data) < 2:
            break
        match chosen.randrange(6):
            case 0:
                data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
            case 1:
                data[chosen.randrange(len(data))] = chosen.choice((0, 1, 2, 0x7F, 0x80, 0xFF))
            case 2:
                at = chosen.randrange(len(data))
                data[at : at + 4] = chosen.choice(
                    (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", bytes(4))
                )
            case 3:
                del data[chosen.randrange(1, len(data)) :]
            case 4:
                at = chosen.randrange(len(data))
                data[at:at] = chosen.randbytes(chosen.randrange(1, 20))
            case 5:
                other = chosen.choice(corpus)
                data[chosen.randrange(len(data)) :] = other[chosen.randrange(len(other)) :]
    if (
        len(data) >= 4 and chosen.random() < 0.7
    ):  # mostly with a right length, so that it gets past the framing
        data[0:4] = (len(data) - 4).to_bytes(4, "big")
    return bytes(data)
