import time

import psutil
import pytest
import torch

from app.implementations.training import resources
from app.implementations.training.resources import Resources


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(resources.time, "monotonic", lambda: now[0])
    return now


def busy(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_it_reads_this_process_once_a_second(clock):
    reader = Resources(torch.device("cpu"))
    first = reader.read()
    assert first.keys() == {"cpu_percent", "memory_bytes"}
    assert first["memory_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    clock[0] += 0.9
    assert reader.read() == {}
    clock[0] += 0.1
    assert reader.read().keys() == first.keys()


def test_cpu_is_the_share_of_one_core(clock):
    """Half a second of work in two seconds."""
    reader = Resources(torch.device("cpu"))
    busy(0.5)
    clock[0] += 2.0
    assert reader.mean_cpu_percent() == pytest.approx(25, rel=0.2)


def test_a_gpu_is_read_too(clock, monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3_000_000_000)
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 87)
    figures = Resources(torch.device("cuda")).read()
    assert (figures["gpu_memory_bytes"], figures["gpu_utilization"]) == (3_000_000_000, 87)


def test_a_gpu_that_does_not_tell_its_use_is_asked_once(clock, monkeypatch):
    asked = []

    def unknown(device):
        asked.append(device)
        raise ModuleNotFoundError("nvidia-ml-py")

    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1)
    monkeypatch.setattr(torch.cuda, "utilization", unknown)
    reader = Resources(torch.device("cuda"))
    for _ in range(3):
        figures = reader.read()
        clock[0] += 1
        assert figures["gpu_memory_bytes"] == 1
        assert "gpu_utilization" not in figures
    assert len(asked) == 1
