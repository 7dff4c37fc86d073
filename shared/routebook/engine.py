"""How papermill runs our notebooks: as ever, but written to disk once."""

from __future__ import annotations

from typing import Any

from papermill.engines import NBClientEngine, papermill_engines

NAME = "routebook"


class WriteOnceEngine(NBClientEngine):
    """Runs the cells as papermill does by default, but writes the notebook when they are done or one has failed.

    papermill writes it before and after every cell. Ours end up with megabytes of figures and thousands of recorded
    values, and a run's folder is nobody's business before it is whole (`routebook.runs.execute`).
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> None:
        """Run all cells; what papermill does afterwards writes the notebook, also after an exception."""
        path, nb_man.output_path = nb_man.output_path, None
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **options)
        finally:
            nb_man.output_path = path


def register() -> str:
    """Make the engine known to papermill and return its name."""
    papermill_engines.register(NAME, WriteOnceEngine)
    return NAME
