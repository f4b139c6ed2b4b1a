from pathlib import Path

import psutil
import pytest

from app.implementations.models import host_memory
from app.implementations.models.host_memory import available_bytes


@pytest.fixture(autouse=True)
def _no_gpu_and_no_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(host_memory, "_GROUPS", ())


def make_program(folder: Path, said: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho {said}\n")
    program.chmod(0o755)


def test_the_hosts() -> None:
    assert available_bytes("auto") == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_containers_limit_less_what_it_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in {"most": "5000", "used": "3000", "memory.stat": "anon 2500\nfiles 400\n"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(host_memory, "_GROUPS", ((tmp_path, "most", "used", "files"),))
    assert available_bytes() == 2400
    (tmp_path / "most").write_text("max")
    assert available_bytes() > 2400


def test_a_gpus_where_one_is_meant(tmp_path: Path) -> None:
    make_program(tmp_path, "100")
    assert available_bytes("auto") == available_bytes("cuda") == 100 * 2**20
    assert available_bytes("cpu") > 100 * 2**20
    make_program(tmp_path, "no devices were found")
    assert available_bytes("auto") > 100 * 2**20
