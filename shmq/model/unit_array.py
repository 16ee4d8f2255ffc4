"""ConsumeQueue units as numpy arrays, for batches and scans. Layout: see ``unit``.

The type is packed (20 bytes, unaligned 8-byte members), so ``numpy.frombuffer(map, UNIT_DTYPE)`` is a view
of a mapped ConsumeQueue file. Imported only by workers, the coordinator, recovery and direct readers.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from shmq.model.unit import UNIT_BYTES

UNIT_DTYPE = np.dtype([("physical_offset", ">i8"), ("size", ">i4"), ("tags_code", ">i8")])
assert UNIT_DTYPE.itemsize == UNIT_BYTES

IntArray = npt.NDArray[np.int64]


def pack_units(
    first_physical_offset: int, sizes: IntArray | Sequence[int], tags_codes: IntArray | Sequence[int]
) -> bytes:
    """Return the units of records that lie back to back from ``first_physical_offset``."""
    record_sizes = np.asarray(sizes, dtype=np.int64)
    units = np.empty(len(record_sizes), dtype=UNIT_DTYPE)
    ends = np.cumsum(record_sizes)
    units["physical_offset"] = ends - record_sizes + first_physical_offset
    units["size"] = record_sizes
    units["tags_code"] = tags_codes
    return units.tobytes()
