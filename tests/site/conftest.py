"""The built site, served on this machine and opened in a real browser."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLAYWRIGHT_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# A busy machine may take its time; what never comes still fails.
PATIENCE = 120_000


def toc_pages() -> list[str]:
    """Every page of the book, as `_toc.yml` lists it, without its ending."""
    found = []

    def walk(node):
        if isinstance(node, dict):
            found.extend(value for key, value in node.items() if key in ("root", "file"))
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, dict | list):
                walk(child)

    walk(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    return found


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    # A browser asks for the parts of a page all at once; of five that wait, on a busy machine, the sixth is dropped.
    request_queue_size = 128


@pytest.fixture(scope="session")
def address(built):
    handler = functools.partial(_Quiet, directory=str(built))
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs Chromium to look at the site (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=PLAYWRIGHT_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def opener(browser, address):
    """Open a page of the site in a context of its own, noting what goes wrong on it.

    Whatever it asks of other hosts is refused and noted in `outside`; errors of any kind in `problems`.
    """

    def route(page, request):
        if request.request.url.startswith((address, "data:", "blob:")):
            request.continue_()
        else:
            page.outside.append(request.request.url)
            request.abort()

    def open_(name, width=1300, theme="light", fragment="", **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, **options)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.problems, page.outside = [], []
        page.route("**/*", functools.partial(route, page))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
        if options.get("java_script_enabled", True):
            page.on("requestfailed", lambda request: page.problems.append(f"failed: {request.url}"))
        page.on("response", lambda r: page.problems.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        page.goto(f"{address}{name}.html{fragment}", wait_until="load")
        if options.get("java_script_enabled", True):
            page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
        return page

    return open_


@pytest.fixture
def open_page(opener):
    """Open a page of the site for one test, which may do with it what it likes."""
    opened = []

    def open_(*words, **options):
        opened.append(opener(*words, **options))
        return opened[-1]

    yield open_
    for page in opened:
        page.context.close()


@pytest.fixture(scope="session")
def visit(opener):
    """Return a page of the site, opened once for all tests that only read it."""
    return functools.cache(opener)


@pytest.fixture(scope="session", params=toc_pages())
def page(opener, request):
    """Each page of the book in turn, opened once for all tests that look at every page; `name` is its path."""
    page = opener(request.param)
    page.name = request.param
    yield page
    page.context.close()


@pytest.fixture(scope="session")
def pages():
    return toc_pages()
