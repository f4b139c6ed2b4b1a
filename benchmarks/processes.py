"""Processes that are measured from outside, and watched while they run."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAY_EVERY = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Finished:
    """``status`` is negative for a signal. ``peak_bytes`` is the most that the process held in memory (RSS).

    Linux counts what the starting process held at its start for the started one: start from a small one.
    """

    status: int
    seconds: float
    peak_bytes: int


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(
    title: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    threads: int,
    answers: Path | None = None,
    progress: Path | None = None,
) -> Finished:
    """Run ``command`` at the repository's root with standard error in ``log``, and its output in ``answers``.

    Says every few seconds where it is: what the file ``progress`` holds, if there is one.
    """
    started = time.perf_counter()
    said = started
    log.unlink(missing_ok=True)
    with log.open("ab") as errors, (answers or log).open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(threads), stdin=subprocess.DEVNULL, stdout=output, stderr=errors
        )
        try:
            while True:
                # wait4 rather than Popen.wait: it answers with this child's own use of memory.
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                time.sleep(0.1)
                now = time.perf_counter()
                if now - said >= SAY_EVERY:
                    said = now
                    where = progress.read_text("utf-8") if progress and progress.is_file() else "at work"
                    say(f"  {title}: {where}, {now - started:.0f} s")
        except BaseException:
            process.kill()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return Finished(process.returncode, time.perf_counter() - started, usage.ru_maxrss * unit)


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-lines:])


def _environment(threads: int) -> Mapping[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
