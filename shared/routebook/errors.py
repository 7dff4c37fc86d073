"""What routebook raises when the user asked for something impossible."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A request that cannot be met: the message says what was found, what was expected and what to type next.

    The command line prints the message alone and exits with 2.
    """


class DataError(UserError):
    """A dataset is missing, damaged, or holds values that no benchmark can hold."""


class RunFailed(Exception):
    """A notebook raised, or Jupyter Book refused the book: the message names what was kept to look at.

    The command line exits with 1.
    """


def suggest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name nearest to `name`, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
