"""The three store threads beside the main loop: flusher, checkpointer, and allocator of CommitLog segments.

Started before the first appender, stopped after the last: then the final flush makes everything that was
appended durable. All release the interpreter lock while they wait for the disk.
"""

from __future__ import annotations

from collections.abc import Sequence

from shmq.base.errors import Unavailable
from shmq.model.settings import BrokerSettings
from shmq.shm.control_page import ControlPage, PageState
from shmq.shm.doorbell import Doorbell
from shmq.shm.page_layout import FLUSHED_POSITION, WRITE_POSITION
from shmq.store.checkpointer import Checkpointer
from shmq.store.checksums import LogChecksums
from shmq.store.flusher import Flusher
from shmq.store.names import StoreLayout
from shmq.store.segment_allocator import SegmentAllocator, zero_ahead_bytes
from shmq.store.segment_descriptors import SegmentDescriptors


class FlushService:
    """Wires the three to one page."""

    def __init__(
        self,
        layout: StoreLayout,
        page: ControlPage,
        bells: Sequence[Doorbell],
        settings: BrokerSettings,
    ) -> None:
        """Nothing runs before `start`."""
        self._layout = layout
        self._page = page
        self._descriptors = SegmentDescriptors(layout)
        self._allocator = SegmentAllocator(
            layout, page, bells, self._descriptors, zero_ahead_bytes=zero_ahead_bytes(settings)
        )
        self._checksums = LogChecksums(layout, self._descriptors)
        self._flusher = Flusher(
            layout,
            page,
            bells,
            self._descriptors,
            settings,
            checksums=self._checksums,
            on_wake=self._wake,
        )
        self._checkpointer = Checkpointer(layout, page, settings, self._checksums)

    def _wake(self) -> None:
        """Called in the flusher's thread: something was appended or flushed."""
        self._allocator.wake()
        self._checkpointer.wake()

    def start(self) -> None:
        """Make the first segment ready, then start the threads; none when the store can only be read.

        When the disk refuses, an empty store is not served (Unavailable); one with messages is, and sends are
        refused until there is room.
        """
        if self._page.state is PageState.READ_ONLY:
            return
        try:
            self._allocator.prepare()
        except OSError as fault:
            if not self._page.words[WRITE_POSITION]:
                raise Unavailable(
                    f"no CommitLog segment of {self._layout.segment_bytes >> 20} MiB can be made in "
                    f"{self._layout.commit_log}: {fault.strerror}; make room or set mappedFileSizeCommitLog"
                ) from fault
            self._allocator.refused(fault)
        self._flusher.start()
        self._allocator.start()
        self._checkpointer.start()

    def stop(self) -> bool:
        """End the threads and flush what is left. After the last appender is gone; twice is harmless.

        True when everything that was appended is on the disk.
        """
        self._allocator.stop()
        self._flusher.stop()
        self._checkpointer.stop()
        self._checksums.close()
        self._descriptors.close()
        words = self._page.words
        return self._page.state is PageState.OK and words[FLUSHED_POSITION] == words[WRITE_POSITION]
