"""Measuring time on a machine that a build keeps busy with other chapters."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from routebook.paths import environment

if TYPE_CHECKING:
    import psutil

# Set by a build for the kernels it starts: its process id and the file whose lock whoever measures holds.
BUILD_VARIABLE = "ROUTEBOOK_BUILD"


@contextlib.contextmanager
def building(lock: Path) -> Iterator[None]:
    """Let chapters run inside the `with` block ask for quiet; at its end nothing this process started stands still.

    Parameters
    ----------
    lock
        File to lock while one of them measures.
    """
    import psutil

    try:
        with environment({BUILD_VARIABLE: f"{os.getpid()}:{lock}"}):
            yield
    finally:
        # A kernel that died while it measured could not wake the others.
        _each(psutil.Process().children(recursive=True), "resume")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold the build's other chapters still while the `with` block measures time; outside a build, do nothing.

    Only the measuring belongs inside: everybody else waits. One chapter at a time measures, the others take turns.
    """
    found = os.environ.get(BUILD_VARIABLE)
    if not found:
        yield
        return
    from filelock import FileLock

    pid, lock = found.split(":", 1)
    with FileLock(lock):
        held: list[psutil.Process] = []
        try:
            while others := [process for process in _others(int(pid)) if process not in held]:
                # Once more, for processes that were about to be started.
                held += others
                _each(others, "suspend")
            yield
        finally:
            _each(held, "resume")


def _others(build: int) -> list[psutil.Process]:
    """Return what a build started, but for this process, those that started it and those it started."""
    import psutil

    me = psutil.Process()
    ours = {me, *me.parents(), *me.children(recursive=True)}
    try:
        return [process for process in psutil.Process(build).children(recursive=True) if process not in ours]
    except psutil.NoSuchProcess:
        return []


def _each(processes: list[psutil.Process], action: str) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            getattr(process, action)()
