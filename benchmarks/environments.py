"""Virtual environments for the peers: each wants versions that this project does not."""

import hashlib
import os
import sys
from pathlib import Path

from benchmarks.processes import ROOT, run, say, tail


def ready(peer: str, folder: Path) -> Path:
    """The Python of ``folder/peer``, made anew if ``requirements-<peer>.txt`` is not what it was made from."""
    requirements = ROOT / "benchmarks" / f"requirements-{peer}.txt"
    place = folder / peer
    python = place / "bin" / "python"
    stamp = place / "made-from"
    key = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == key:
        return python
    folder.mkdir(parents=True, exist_ok=True)
    index = os.environ.get("TORCH_INDEX_URL")
    torch = next(line for line in requirements.read_text("utf-8").splitlines() if line.startswith("torch=="))
    _do(peer, folder, "a virtual environment", sys.executable, "-m", "venv", "--clear", str(place))
    pip = (str(python), "-m", "pip", "install", "--progress-bar", "off", "-c", str(requirements))
    # torch first, with what its build asks for: the CPU's build where pip is offered one, as `make install` does.
    _do(peer, folder, "torch", *pip, torch, *(("--index-url", index) if index else ()))
    # The file lists every package that is needed; a peer asks for some that rows of text do without.
    _do(peer, folder, "its packages", *pip, "--no-deps", "-r", str(requirements))
    stamp.write_text(key)
    return python


def _do(peer: str, folder: Path, what: str, *command: str) -> None:
    log = folder / f"{peer}.log"
    say(f"environment of {peer}: {what}")
    if run(f"environment of {peer}", command, log, threads=1).status:
        raise SystemExit(f"{what} for {peer} could not be installed (all of it: {log}):\n{tail(log)}")
