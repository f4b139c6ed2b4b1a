"""How a process of the trainer protocol is started (docs/trainer-protocol.md)."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, slots=True)
class TrainerProcess:
    """``ring`` and ``control`` are the worker's ends of its two pipes; whoever holds this closes them."""

    process: subprocess.Popen[bytes]
    ring: int
    control: int


def start_process(
    module: str, arguments: Sequence[str], variables: Mapping[str, str], output: IO[bytes] | None
) -> TrainerProcess:
    """``python -m module …``, leading a session, with ``variables`` over this process' environment. It prints to
    ``output``; None: where this process does."""
    ring_in, ring_out = os.pipe()
    control_in, control_out = os.pipe()
    pipes = ("--ring", str(ring_out), "--control", str(control_in))
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, *pipes],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(ring_out, control_in),
            start_new_session=True,
            env={**os.environ, **variables},
        )
    except BaseException:
        os.close(ring_in)
        os.close(control_out)
        raise
    finally:
        os.close(ring_out)
        os.close(control_in)
    return TrainerProcess(process, ring_in, control_out)
