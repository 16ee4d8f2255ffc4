"""What the fork server imports before the first child is forked: all that children need, once.

Nothing here may start a thread: a fork copies only the thread that forks. numpy's BLAS would start some, so
it is told not to before it is imported (nothing in shmq multiplies matrices).
"""

from __future__ import annotations

import gc
import os
import signal

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import setproctitle

from shmq.supervisor.child import leave_with_parent

leave_with_parent(signal.SIGKILL)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C is the supervisor's business
setproctitle.setproctitle("shmq: fork server")

import shmq.coordinator.main  # noqa: E402
import shmq.worker.main  # noqa: E402, F401
from shmq.store.write_recorder import install_if_asked  # noqa: E402

install_if_asked()

gc.collect()
gc.freeze()
"""Objects that exist now are left alone by every child's collector, so that their pages stay shared."""
