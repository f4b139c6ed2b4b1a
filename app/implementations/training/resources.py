"""What a run takes of the machine."""

import time

import psutil
import torch

READ_SECONDS = 1.0


class Resources:
    """Of this process, read at most once a second. ``device`` is where it trains."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._asks_use = device.type == "cuda"
        self._process = psutil.Process()
        self._process.cpu_percent()  # the next call measures from here
        self._started, self._used = time.monotonic(), self._cpu_seconds()
        self._read_at = float("-inf")

    def read(self) -> dict[str, float]:
        """``cpu_percent`` since the last reading, 100 for each core; ``memory_bytes``, resident; on a GPU
        ``gpu_memory_bytes`` that this process holds and ``gpu_utilization`` in percent. Empty within a second."""
        now = time.monotonic()
        if now - self._read_at < READ_SECONDS:
            return {}
        self._read_at = now
        host = {"cpu_percent": self._process.cpu_percent(), "memory_bytes": self._process.memory_info().rss}
        return host | (self._gpu() if self._device.type == "cuda" else {})

    def mean_cpu_percent(self) -> float:
        """From the beginning on."""
        return 100 * (self._cpu_seconds() - self._used) / max(time.monotonic() - self._started, 1e-9)

    def _cpu_seconds(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system

    def _gpu(self) -> dict[str, float]:
        held: dict[str, float] = {"gpu_memory_bytes": torch.cuda.memory_reserved(self._device)}
        if self._asks_use:
            try:
                held["gpu_utilization"] = torch.cuda.utilization(self._device)
            except Exception:  # noqa: BLE001 - without nvidia-ml-py, or on a GPU that does not tell
                self._asks_use = False
        return held
