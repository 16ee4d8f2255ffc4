"""Log-ready batches: a client encodes them, a worker checks them and stamps what only the broker knows.

Imported by processes that have numpy: clients that send batches, and workers; never the supervisor or the
CLI.
"""

import numpy as np

from shmq.model.batch_check import BatchCheck as BatchCheck
from shmq.model.batch_check import check_batch as check_batch
from shmq.model.batch_encoder import encode_batch as encode_batch
from shmq.model.record_array import IntArray, heads_everywhere


def stamp_batch(
    buffer: bytearray | memoryview,
    starts: IntArray,
    first_queue_offset: int,
    first_physical_offset: int,
    store_time: int,
    store_host: bytes | None = None,
    born_host: bytes | None = None,
) -> None:
    """Write what only the broker knows into every record: offsets, store time and, where given, the hosts.

    ``first_physical_offset`` is where the buffer's first byte will lie. Hosts have 8 bytes. Called by
    workers: hosts may be stamped before the append lock is taken (``stamp_hosts``), the rest needs it.
    """
    heads = heads_everywhere(buffer)
    heads["queue_offset"][starts] = np.arange(first_queue_offset, first_queue_offset + len(starts))
    heads["physical_offset"][starts] = starts + first_physical_offset
    heads["store_timestamp"][starts] = store_time
    if store_host is not None and born_host is not None:
        stamp_hosts(buffer, starts, store_host, born_host)


def stamp_hosts(
    buffer: bytearray | memoryview, starts: IntArray, store_host: bytes, born_host: bytes
) -> None:
    """Write both 8-byte hosts into every record."""
    heads = heads_everywhere(buffer)
    heads["store_host"][starts] = np.void(store_host)
    heads["born_host"][starts] = np.void(born_host)
