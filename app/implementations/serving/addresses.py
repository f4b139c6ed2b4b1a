"""Where the engines that run.py has started listen, and how one more is asked for: private files of INSTANCE_DIR.

run.py writes the one, by rename; whoever needs an engine that is not there leaves a wish, a file that run.py takes
away once it has put the engine's name among those that start, or that were refused.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from app.core.entities.engines import EngineName
from app.utils.files import write_whole

ENGINES_FILE = "engines.json"
WISHES = "engine_wishes"
WISH = ".wish"


@dataclass(frozen=True, slots=True)
class Refusal:
    """``at`` is of the monotonic clock, which all processes of a host share."""

    at: float
    why: str


@dataclass(frozen=True, slots=True)
class OwnEngines:
    """``engines``: base model → URL; ``versions``: artifacts → URL, of those that have an engine of their own.

    ``always``: the base model whose engine is there for good; the others are listed from when they answer on.
    """

    always: str | None = None
    engines: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    starting: Sequence[str] = ()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    secret: str | None = None
    starts_others: bool = False  # whether somebody looks for wishes

    def url(self, engine: EngineName) -> str | None:
        return self.versions.get(engine.version) if engine.version else self.engines.get(engine.base_model)


def write_own_engines(instance_dir: Path, own: OwnEngines) -> None:
    write_whole(instance_dir / ENGINES_FILE, json.dumps(asdict(own)))


def read_own_engines(instance_dir: Path) -> OwnEngines:
    """What ``write_own_engines`` wrote last; nothing when run.py does not run."""
    try:
        written = json.loads((instance_dir / ENGINES_FILE).read_text("utf-8"))
    except FileNotFoundError:
        return OwnEngines()
    refused = {name: Refusal(**refusal) for name, refusal in written.get("refused", {}).items()}
    return OwnEngines(**{**written, "refused": refused})


def wish_file(instance_dir: Path, engine: EngineName) -> Path:
    return instance_dir / WISHES / f"{engine}{WISH}"


def leave_wish(instance_dir: Path, engine: EngineName) -> None:
    """Names of base models and artifacts are names of files, too."""
    place = wish_file(instance_dir, engine)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(place, json.dumps(asdict(engine)))


def wishes(instance_dir: Path) -> Iterator[tuple[Path, EngineName]]:
    for file in sorted((instance_dir / WISHES).glob(f"*{WISH}")):
        yield file, EngineName(**json.loads(file.read_text("utf-8")))
