"""How much a project may have, and how often a caller may ask."""

import math
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True)
class ProjectLimits:
    """What a project may have; None: as much as it likes."""

    running: int | None = None  # jobs that run at once, of heavy kinds
    queued: int | None = None  # jobs in WAITING_STATES; those of light kinds are counted apart
    requests: int | None = None  # a minute
    tokens: int | None = None  # a minute, of prompts and answers
    storage_bytes: int | None = None  # of datasets and published versions
    versions: int | None = None  # that are published

    def or_else(self, otherwise: Self) -> Self:
        """These; ``otherwise`` where these say nothing."""
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(
            **{name: getattr(otherwise, name) if value is None else value for name, value in mine.items()}
        )


@dataclass(frozen=True, slots=True)
class ProjectUse:
    """What a project has of what is limited."""

    running: int = 0
    queued: int = 0
    storage_bytes: int = 0
    versions: int = 0

    def plus(self, other: Self) -> Self:
        """Return both together."""
        return type(self)(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


NOTHING = ProjectUse()


@dataclass(frozen=True, slots=True)
class LimitReport:
    """``limits`` as they hold: the project's ``own``, else the service's."""

    limits: ProjectLimits
    own: ProjectLimits
    used: ProjectUse


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds; ``name`` is what clients read in the headers."""

    name: str
    amount: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Window:
    """What was taken in a sliding window: of the one before, as large a part as it still overlaps counts."""

    seconds: int
    before: int
    before_ends_in: float
    taken: int
    ends_in: float  # until it is the one before

    @property
    def used(self) -> float:
        return self.before * self.before_ends_in / self.seconds + self.taken

    def wait(self, most: int, cost: int = 1) -> float:
        """Seconds until ``cost`` more find room among ``most``; 0: now. Beyond ``most`` a cost counts as that."""
        room = most - min(cost, most)
        if self.used <= room:
            return 0.0
        if self.taken <= room:  # then enough of the window before goes, while it goes
            return self.before_ends_in - (room - self.taken) * self.seconds / self.before
        return self.ends_in + self.seconds * (1 - room / self.taken)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is left of a rate. ``is_refused``: what was asked for found no room."""

    rate: Rate
    remaining: int
    wait: int  # seconds until there is more
    is_refused: bool = False

    @classmethod
    def of(cls, rate: Rate, window: Window, is_refused: bool = False) -> Self:
        remaining = max(0, rate.amount - math.floor(window.used))
        wait = math.ceil(window.wait(rate.amount, remaining + 1))
        return cls(rate, remaining, max(1, wait), is_refused)
