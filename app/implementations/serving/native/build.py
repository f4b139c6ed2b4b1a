"""Compiles kernels.cpp on the machine that it is for, and loads what it made."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("kernels.cpp")
COMPILERS = ("c++", "g++", "clang++")
# No libgomp is linked: torch has brought its own, and with two of them twice the threads would spin.
COMPILE = [
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-c",
]
COMPILE_SECONDS = 120.0


class NotBuilt(Exception):
    """Why there are no native kernels, in a line."""


def load(folder: Path) -> ctypes.CDLL:
    """``folder`` keeps what was compiled, by source, compiler and processor. ``NotBuilt``."""
    _offer_openmp()
    compiler = _compiler()
    library = folder / f"kernels-{_digest(compiler)}.so"
    if not library.exists():
        _compile(compiler, library)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise NotBuilt(f"{library.name} cannot be loaded: {error}") from None


def _compiler() -> str:
    for name in (os.environ.get("CXX"), *COMPILERS):
        if name and (found := shutil.which(name)):
            return found
    raise NotBuilt("there is no C++ compiler")


def _digest(compiler: str) -> str:
    digest = hashlib.sha256(SOURCE.read_bytes())
    digest.update(" ".join([compiler, *COMPILE]).encode())
    digest.update(_processor())
    return digest.hexdigest()[:16]


def _processor() -> bytes:
    """What -march=native depends on: a folder may be shared by machines."""
    lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n", 1)[0].splitlines()
    return b"\n".join(line for line in lines if line.startswith((b"model", b"flags", b"Features", b"CPU part")))


def _offer_openmp() -> None:
    """Make the symbols of the OpenMP library that torch has loaded visible to ours."""
    import torch  # noqa: F401

    for line in Path("/proc/self/maps").read_text("utf-8").splitlines():
        path = line.partition("/")[2]
        if "gomp" in path:
            ctypes.CDLL(f"/{path}", mode=ctypes.RTLD_GLOBAL)
            return
    raise NotBuilt("this torch has no libgomp")


def _compile(compiler: str, library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kernels-", dir=library.parent) as work:
        compiled, linked = Path(work, "kernels.o"), Path(work, "kernels.so")
        _run([compiler, *COMPILE, str(SOURCE), "-o", str(compiled)])
        _run([compiler, "-shared", str(compiled), "-o", str(linked)])
        if not linked.exists():
            raise NotBuilt(f"{compiler} has made nothing")
        linked.replace(library)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"{command[0]} fails: {error}") from None
    if done.returncode:
        raise NotBuilt(f"{command[0]} fails: {done.stderr.strip()[-500:]}")
