"""From an engine's name to its URL: engines that are configured, and those that run.py starts on demand."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.core.entities.engines import EngineName
from app.core.errors import Unavailable
from app.implementations.serving.addresses import (
    ENGINES_FILE,
    OwnEngines,
    leave_wish,
    read_own_engines,
    wish_file,
)

LOOK_SECONDS = 0.05  # between two looks for an engine that starts
DEAF_SECONDS = 10.0  # after which run.py has not heard a wish


@dataclass(frozen=True, slots=True)
class Place:
    """``on_demand``: it may go, and come back elsewhere."""

    url: str
    secret: str | None
    on_demand: bool = False

    @property
    def headers(self) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self.secret}"} if self.secret else {}


class EnginePlaces:
    """``given``: ENGINES, by name, with their ``secret``. ``instance_dir``: where run.py says what it runs."""

    def __init__(self, given: Mapping[str, str], secret: str | None, instance_dir: Path | None = None) -> None:
        self._given = {name: Place(url.rstrip("/"), secret) for name, url in given.items()}
        self._instance_dir = instance_dir
        self._read: tuple[tuple[int, int] | None, OwnEngines] = (None, OwnEngines())

    def bases(self) -> Mapping[str, Place]:
        """Of base models: run.py's, the first of them ENGINE_BASE_MODEL's, and those that are given."""
        own = self._own()
        return {**{name: Place(url, own.secret) for name, url in own.engines.items()}, **self._given}

    def find(self, engine: EngineName, until: float, but: Place | None = None) -> Place:
        """Its place, asked for and waited for where run.py has to start it first. ``but``: not there, it has gone.

        ``Unavailable`` (base_not_resident) with the reason, (engine_timeout) when it is not there by ``until``.
        """
        if str(engine) in self._given:
            return self._given[str(engine)]
        asked = time.monotonic()
        while True:
            own = self._own()
            url = own.url(engine)
            if url is not None and (but is None or url != but.url):
                return Place(url, own.secret, on_demand=str(engine) != own.always)
            if (refusal := own.refused.get(str(engine))) is not None and refusal.at >= asked:
                raise Unavailable(refusal.why, code="base_not_resident", retry_after=2)
            if not own.starts_others or self._instance_dir is None:
                raise self._nobody_starts(engine)
            if url is None and str(engine) not in own.starting:
                self._wish(engine, self._instance_dir)
            if time.monotonic() >= until:
                message = f"the engine of {engine} has not started yet; ask again"
                raise Unavailable(message, code="engine_timeout", retry_after=2)
            time.sleep(LOOK_SECONDS)

    def _wish(self, engine: EngineName, instance_dir: Path) -> None:
        try:
            age = time.time() - wish_file(instance_dir, engine).stat().st_mtime
        except FileNotFoundError:
            leave_wish(instance_dir, engine)
            return
        if age > DEAF_SECONDS:
            with suppress(FileNotFoundError):
                wish_file(instance_dir, engine).unlink()
            raise Unavailable(
                f"run.py starts no engine for {engine}: it does not answer", code="base_not_resident"
            )

    def _nobody_starts(self, engine: EngineName) -> Unavailable:
        known = ", ".join(self.bases()) or "none"
        command = f"python -m app.processes.engine --base_model {engine.base_model}"
        command += f" --version {engine.version}" if engine.version else ""
        return Unavailable(
            f"no engine serves {str(engine)!r} (there are: {known}), and none is started on demand but by run.py: "
            f"start one with `{command}` and name it in ENGINES",
            code="base_not_resident",
        )

    def _own(self) -> OwnEngines:
        """Read again where the file is another one."""
        if self._instance_dir is None:
            return OwnEngines()
        try:
            status = (self._instance_dir / ENGINES_FILE).stat()
        except FileNotFoundError:
            return OwnEngines()
        key = status.st_ino, status.st_mtime_ns
        if self._read[0] != key:
            self._read = key, read_own_engines(self._instance_dir)
        return self._read[1]
