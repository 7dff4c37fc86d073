"""A Sphinx extension that leaves out of the pages what the theme adds and this book never uses."""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    # After all that adds scripts to a page.
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def drop_thebe(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out the scripts of sphinx-thebe, which Jupyter Book always loads.

    They make code cells live through a service on another host, which no page of this book asks for, and they are
    written onto every page twice, which browsers report as an error.
    """
    scripts = context.get("script_files", [])
    context["script_files"] = [script for script in scripts if not _is_thebe(script)]


def _is_thebe(script: Any) -> bool:
    inline = (getattr(script, "attributes", None) or {}).get("body") or ""
    return "thebe" in str(getattr(script, "filename", "") or "") or "THEBE_JS_URL" in inline
