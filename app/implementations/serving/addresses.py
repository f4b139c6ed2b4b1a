"""Where the engines that run.py has started listen: one private file of the instance folder."""

import json
from collections.abc import Mapping
from pathlib import Path

from app.utils.files import write_whole

ENGINES_FILE = "engines.json"


def write_engine_addresses(instance_dir: Path, engines: Mapping[str, str], secret: str | None) -> None:
    """Tell the other processes of this host where run.py's own engines listen (base model → URL). Mode 0600."""
    write_whole(instance_dir / ENGINES_FILE, json.dumps({"engines": dict(engines), "secret": secret}))


def read_engine_addresses(instance_dir: Path) -> tuple[dict[str, str], str | None]:
    """What ``write_engine_addresses`` wrote; nothing when run.py does not run."""
    try:
        written = json.loads((instance_dir / ENGINES_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return {}, None
    return written["engines"], written["secret"]
