"""Quiet while time is measured: the build's other processes stand still, and go on afterwards whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from routebook.quiet import BUILD_VARIABLE, building, quiet

COUNTER = """
import sys, time
while True:
    with open(sys.argv[1], "a") as file:
        file.write(".")
    time.sleep(0.01)
"""
MEASURER = """
import sys, time
from pathlib import Path
from routebook.quiet import quiet

counter, wish = Path(sys.argv[1]), sys.argv[2]
with quiet():
    time.sleep(0.05)
    before = counter.stat().st_size
    time.sleep(0.3)
    print(before, counter.stat().st_size, flush=True)
    if wish == "raise":
        raise RuntimeError("the measuring broke")
    if wish == "die":
        import os
        os._exit(9)
"""


def _start(code: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True)


def _counts(counter: Path) -> bool:
    """Whether the counter goes on within a few seconds."""
    before, deadline = counter.stat().st_size, time.monotonic() + 10
    while counter.stat().st_size == before:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def counter(tmp_path):
    file = tmp_path / "count"
    process = _start(COUNTER, file)
    while not file.exists():
        time.sleep(0.02)
    yield file
    process.kill()
    process.wait()


@pytest.mark.parametrize("wish", ["return", "raise"])
def test_another_process_of_the_build_stands_still_while_one_measures(tmp_path, counter, wish):
    with building(tmp_path / "lock"):
        measurer = _start(MEASURER, counter, wish)
        before, after = measurer.communicate(timeout=60)[0].split()
        assert before == after
        assert _counts(counter)
    assert BUILD_VARIABLE not in os.environ
    assert (measurer.returncode == 0) == (wish == "return")


def test_a_process_that_dies_while_it_measures_leaves_no_other_suspended(tmp_path, counter):
    with building(tmp_path / "lock"):
        _start(MEASURER, counter, "die").communicate(timeout=60)
        assert any(child.status() == psutil.STATUS_STOPPED for child in psutil.Process().children())
    assert _counts(counter)


def test_two_measure_one_after_the_other(tmp_path, counter):
    with building(tmp_path / "lock"):
        both = [_start(MEASURER, counter, "return") for _ in range(2)]
        said = [process.communicate(timeout=60)[0].split() for process in both]
    assert [before == after for before, after in said] == [True, True]


def test_outside_a_build_nothing_is_held(counter, monkeypatch):
    monkeypatch.delenv(BUILD_VARIABLE, raising=False)
    with quiet():
        assert _counts(counter)
