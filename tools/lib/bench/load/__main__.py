"""A client process: `python -m bench.load DRIVER`.

It says "up" when its libraries are loaded. Then for each job: the job's line in, "ready" out, a line in to
let it go, the outcome's line out; or an error's line in place of either. It lives through a whole
comparison, as a JVM does, so that rounds find it warm. Ends when its input is closed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from contextlib import closing
from typing import TextIO

from bench.load.job import Job
from bench.load.loops import LOOPS


def main() -> None:
    """Take jobs until there are no more."""
    module = importlib.import_module(f"bench.drivers.{sys.argv[1]}")
    # Whatever a library prints must not get between the answers.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        print("up", file=answers)
        for line in sys.stdin:
            try:
                _run(module.Driver, Job.parse(line), answers)
            except Exception as error:
                traceback.print_exc()
                print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)


def _run(driver_class: type, job: Job, answers: TextIO) -> None:
    with closing(driver_class(job.address, job.options)) as driver:
        loop = driver.own_loop(job) or LOOPS[job.work](driver, job)
        next(loop)
        print("ready", file=answers)
        sys.stdin.readline()
        try:
            next(loop)
        except StopIteration as end:
            print(end.value.line(), file=answers)


if __name__ == "__main__":
    main()
