"""Folders on which room runs out when a test says so."""

import errno
import resource
import shutil
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

import pytest


class SmallDisk(ABC):
    """A context: at its end everything is as before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    @abstractmethod
    def fill(self, spare: int) -> None:
        """Leave room for a file of ``spare`` bytes, about."""

    @abstractmethod
    def clear(self) -> None:
        """Make room again."""


class SmallTmpfs(SmallDisk):
    """A real file system of 32 MB; the test is skipped where it may not mount one."""

    def __enter__(self) -> Self:
        command = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(self.folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            pytest.skip("no right to mount a file system")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)

    def fill(self, spare: int) -> None:
        self.clear()
        try:
            (self.folder / "filler").write_bytes(bytes(shutil.disk_usage(self.folder).free - spare))
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a service beside has written meanwhile: full is full
                raise

    def clear(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)


class FileSizeLimit(SmallDisk):
    """The kernel refuses this process to write a file beyond a size: as near to a full disk as no rights get."""

    def fill(self, spare: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (spare, resource.RLIM_INFINITY))

    def clear(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
