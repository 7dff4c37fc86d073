"""The pages do without the scripts of sphinx-thebe."""

from __future__ import annotations

from types import SimpleNamespace

from routebook import sphinx_theme


def test_scripts_of_thebe_are_left_out_and_others_are_kept():
    def script(filename, body=None):
        return SimpleNamespace(filename=filename, attributes={"body": body} if body else {})

    kept = [script("_static/tables.js"), script(None, "let toggleHintShow = 'Click to show'"), "_static/plain.js"]
    dropped = [script("_static/sphinx-thebe.js"), script(None, 'const THEBE_JS_URL = "https://unpkg.com/thebe"')]
    context = {"script_files": [*dropped, *kept]}
    sphinx_theme.drop_thebe(None, "page", "page.html", context, None)
    assert context["script_files"] == kept


def test_the_extension_comes_after_those_that_add_scripts():
    connected = []
    app = SimpleNamespace(connect=lambda event, what, priority: connected.append((event, what, priority)))
    assert sphinx_theme.setup(app)["parallel_read_safe"]
    assert connected == [("html-page-context", sphinx_theme.drop_thebe, 900)]
