"""What all tests share: the folder with real data, where there is one, and a cache of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder `$ROUTEBOOK_DATA`; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("ROUTEBOOK_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real routing data: set ROUTEBOOK_DATA to a folder that holds it")
    return Path(folder)


@pytest.fixture(scope="session")
def built(root, tmp_path_factory) -> Path:
    """The built site: `routebook build`, with Jupyter Book's warnings as errors; chapters rerun only if changed."""
    # Where tests run in several processes, their folders share a parent, and the second finds the book built.
    with FileLock(tmp_path_factory.getbasetemp().parent / "built.lock"):
        done = subprocess.run([sys.executable, "-m", "routebook", "build"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "_build" / "html"


@pytest.fixture
def encoded(monkeypatch):
    """Every text that is really encoded, in order."""
    from routebook import encoders

    texts = []
    plain = encoders.Encoder.encode

    def spy(self, prompts, **kw):
        texts.extend(prompts)
        return plain(self, prompts, **kw)

    monkeypatch.setattr(encoders.Encoder, "encode", spy)
    return texts


@pytest.fixture(autouse=True)
def no_figure_left_open():
    """Close what a test drew and did not show: some tests count the figures that are open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
