"""The policy epoch: one page word that moves whenever direct readers must ask by socket again.

Moved by the coordinator alone, after the change it stands for is in place: a topic or group created,
changed or deleted, offsets reset. Readers load it before every batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from shmq.shm import page_layout as at
from shmq.shm.control_page import ControlPage
from shmq.shm.doorbell import Doorbell
from shmq.shm.rings import fence, ring_parked


class PolicyEpoch:
    """The coordinator's hand on the word."""

    def __init__(self, page: ControlPage, bells: Sequence[Doorbell]) -> None:
        """Move the epoch of `page`; `bells` are those of all slots."""
        self._page = page
        self._bells = bells

    def bump(self) -> None:
        """Move the word and ring who waits for it."""
        self._page.words[at.POLICY_EPOCH] += 1
        fence()
        ring_parked(self._page, at.POLICY_RINGS, self._bells)
