"""The core's process: its settings before torch is imported, and its end with the front."""

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

from app.implementations.serving.channel import Channel, FrontGone
from app.implementations.serving.label_config import head_labels
from app.implementations.serving.messages import Precision

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run_core(
    socket_fd: int,
    folder: Path,
    base_folder: Path | None,
    precision: Precision,
    threads: int,
    kv_bytes: int,
    adapter_bytes: int,
    kernels: Path | None,
) -> None:
    """Serve the model in ``folder`` over the inherited socket until the front is gone.

    With a label head the folder may hold no more than its adapter, for the model in ``base_folder``.
    """
    _live_no_longer_than_the_front()
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.set_inheritable(socket_fd, False)
    channel = Channel(socket.socket(fileno=socket_fd))

    import torch

    from app.implementations.serving.core import Core
    from app.implementations.serving.label_core import LabelCore
    from app.implementations.serving.label_head import load_label_head
    from app.implementations.serving.loading import load_model

    torch.set_num_threads(threads)
    try:
        if labels := head_labels(folder):
            LabelCore(load_label_head(folder, base_folder, labels, precision), channel).run()
        model = load_model(folder, precision, kv_bytes, kernels)
        Core(model, channel, adapter_bytes, folder / "tokenizer.json").run()
    except FrontGone:
        sys.exit(0)


def _live_no_longer_than_the_front() -> None:
    if sys.platform == "linux":
        # Of use when the front is killed during a long step; without it, the socket's end is read after the step.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A Ctrl-C or an operator's signal reaches the whole process group: the front decides when the core ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
