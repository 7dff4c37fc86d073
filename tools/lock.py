"""Write requirements.lock: exact pins of what a fresh environment resolves pyproject.toml to."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# Exact pins of everything the book needs; make, CI and environment.yml install from this file alone.
# Made by `make lock` from pyproject.toml. Do not edit by hand.
"""


def main() -> None:
    """Resolve the project's requirements in a new environment and freeze it."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = config["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    wanted += [*config["build-system"]["requires"], "editables"]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        frozen = subprocess.run([python, "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True)
    # A local build tag such as torch's "+cpu" names this machine's wheel, not the release.
    pins = [re.sub(r"\+\w+$", "", line) for line in frozen.stdout.splitlines() if not line.startswith("pip==")]
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(sorted(pins, key=str.lower)) + "\n")
    print(f"requirements.lock: {len(pins)} pins", file=sys.stderr)


if __name__ == "__main__":
    main()
