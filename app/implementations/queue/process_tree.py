"""Ending a process and all that it started."""

import os
from collections.abc import Collection
from contextlib import suppress

import psutil

KILL_ROUNDS = 20  # a round finds what was forked while the one before was at work
ROUND_SECONDS = 0.5


def kill_session(leader: int) -> None:
    """Kill the session of ``leader``, its descendants and their sessions; returns when they are gone.

    torchrun's ranks have sessions of their own, so neither the group nor the session is enough. The leader may
    be dead already: what is left of its session is still found.
    """
    sessions = {leader}
    for _ in range(KILL_ROUNDS):
        victims = _members(sessions)
        if not victims:
            return
        sessions |= _sessions(victims)
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(victims, timeout=ROUND_SECONDS)


def _members(sessions: Collection[int]) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found |= {process, *process.children(recursive=True)}
    return found


def _sessions(processes: Collection[psutil.Process]) -> set[int]:
    """Those that a member leads: the session of a stranger's child is not ours to end."""
    leaders = set()
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == process.pid:
                leaders.add(process.pid)
    return leaders


def kill_marked(variable: str, value: str) -> None:
    """Kill every process that was started with this environment variable, whoever its parent is by now."""
    for _ in range(KILL_ROUNDS):
        victims = [process for process in psutil.process_iter() if _is_marked(process, variable, value)]
        if not victims:
            return
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(victims, timeout=ROUND_SECONDS)


def _is_marked(process: psutil.Process, variable: str, value: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(variable) == value
    except (psutil.Error, OSError):  # gone, a zombie, or not ours to look into
        return False
