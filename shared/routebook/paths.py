"""Where things are: the project's root, the data cards, the data folder, the cache; and what processes are told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from routebook.errors import UserError

PACKAGE = Path(__file__).resolve().parent


def project_root() -> Path:
    """Return the folder that holds `_config.yml`, `replications/` and `book/`.

    Looked for upwards from the working directory, then from the installed package.

    Raises
    ------
    UserError
        When routebook is used outside a checkout of the book.
    """
    for start in (Path.cwd(), PACKAGE):
        for folder in (start, *start.parents):
            if (folder / "_config.yml").is_file() and (folder / "replications").is_dir():
                return folder
    raise UserError(
        "the book's folder was not found from here; change into a checkout of the book (it holds _config.yml "
        "and replications/) and try again"
    )


def cards_dir() -> Path:
    """Return the folder with one `<dataset>/card.yaml` a dataset."""
    installed = PACKAGE / "_cards"
    return installed if installed.is_dir() else PACKAGE.parents[1] / "data"


def data_dir() -> Path | None:
    """Return the folder `$ROUTEBOOK_DATA`, or None where it is not set."""
    value = os.environ.get("ROUTEBOOK_DATA")
    return Path(value).expanduser() if value else None


def cache_dir() -> Path:
    """Return `$ROUTEBOOK_CACHE`, by default the user's cache folder."""
    value = os.environ.get("ROUTEBOOK_CACHE")
    return Path(value).expanduser() if value else Path(platformdirs.user_cache_dir("routebook"))


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the `with` block, and restore what was there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
