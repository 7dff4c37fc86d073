"""One thread while it is asked for, and what was set before afterwards."""

from __future__ import annotations

import os

import pytest
import torch
from threadpoolctl import threadpool_info

from routebook.threads import PROCESSES_VARIABLE, one_thread, processes


def counts() -> list[int]:
    return [torch.get_num_threads(), *(library["num_threads"] for library in threadpool_info())]


def test_one_thread_everywhere_and_back():
    with one_thread():
        pass  # loads the libraries
    torch.set_num_threads(2)
    before = counts()
    with one_thread():
        assert set(counts()) == {1}
        with one_thread():
            assert set(counts()) == {1}
        assert set(counts()) == {1}
    assert counts() == before


def test_threads_come_back_after_an_error():
    torch.set_num_threads(2)
    before = counts()
    with pytest.raises(ZeroDivisionError), one_thread():
        1 / 0  # noqa: B018
    assert counts() == before
    with one_thread():
        assert set(counts()) == {1}


def test_a_chapter_has_every_processor_or_the_share_that_a_build_gives_it(monkeypatch):
    monkeypatch.delenv(PROCESSES_VARIABLE, raising=False)
    assert 1 <= processes() <= os.cpu_count()
    monkeypatch.setenv(PROCESSES_VARIABLE, "3")
    assert processes() == 3
