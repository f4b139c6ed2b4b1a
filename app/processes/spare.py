"""A trainer that waits for its job, with all done that any job needs: docs/trainer-protocol.md.

``python -m app.processes.spare --runner NAME --parent PID --ring FD --control FD``, started by a worker.
"""

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.bootstrap import prepare_runner
from app.processes import trainer
from app.processes.children import die_with

LOWEST = 19  # of nice(2)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.processes.spare")
    parser.add_argument("--runner", required=True, help="what will train")
    parser.add_argument("--base", type=Path, help="the folder of the base model that the job may want")
    parser.add_argument("--parent", type=int, required=True, help="the process id of the worker")
    parser.add_argument("--ring", type=int, required=True, help="as a trainer's; the first byte says: prepared")
    parser.add_argument("--control", type=int, required=True, help="as a trainer's; the first line names the job")
    chosen = parser.parse_args(arguments)
    if arm := die_with(chosen.parent, signal.SIGKILL):
        arm()
    for descriptor in (chosen.ring, chosen.control):
        os.set_inheritable(descriptor, False)

    _at_low_priority(lambda: prepare_runner(chosen.runner, chosen.base))
    os.write(chosen.ring, b"!")
    line = _first_line(chosen.control)
    if not line:  # the worker is gone, or wants none any more
        return 0
    job = Path(json.loads(line.removeprefix(b"job ")))
    _log_to(Path(json.loads(job.read_text("utf-8"))["run_folder"]) / "logs.txt")
    return trainer.main([str(job), "--ring", str(chosen.ring), "--control", str(chosen.control)])


def _at_low_priority(work: Callable[[], None]) -> None:
    """In a thread of its own, as Linux keeps a priority for each: who has lowered his may not raise it again, and
    the job is to have a whole one."""

    def lowered() -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        work()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lowered).result()


def _first_line(descriptor: int) -> bytes:
    """Not a byte more: the rest is the trainer's to read. Without its end, the line does not count."""
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(descriptor, 1)
        if not read:
            return b""
        line += read
    return line


def _log_to(path: Path) -> None:
    """Standard output and error."""
    sys.stdout.flush()
    with path.open("ab") as logs:
        for stream in (1, 2):
            os.dup2(logs.fileno(), stream)


if __name__ == "__main__":
    sys.exit(main())
